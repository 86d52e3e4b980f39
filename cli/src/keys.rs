//! The key file of discovery: `--discovery-keys FILE`.
//!
//! ```toml
//! version = 1
//!
//! [beacon]                        # the store's keys, which every node has
//! current = { id = 4, key = "…" } # 64 hexadecimal digits
//! next = { id = 5, key = "…" }    # may be left out, like `previous`
//!
//! [[device]]                      # a device's own keys; a server lists every device, a device itself alone
//! id = "6f9619ff-8b86-d011-b42d-00c04fc964ff"
//! current = { id = 1, key = "…" }
//! previous = { id = 9, key = "…" }
//! ```
//!
//! The file belongs to the user who runs the program, and nobody else may read it. What is missing, empty, readable by
//! others or not understood is refused before anything starts; an error never shows a key.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use serde::Deserialize;
use tillwire::NodeId;
use tillwire::discovery::auth::{DeviceKeys, Key, KeyMap, KeyRing, RepeatedKeyId, ServerKeys};

use crate::error::Failure;
use crate::names;

/// Bytes of a key file: 40,000 devices with three keys each stay below it.
const FILE_BYTES_MAX: u64 = 16 * 1024 * 1024;
/// The form of the file that is understood.
const VERSION: u32 = 1;

const HELP: &str = "docs/KEYS.md shows a key file and how it is rotated";

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct KeyFile {
    version: u32,
    beacon: Option<Ring>,
    #[serde(default)]
    device: Vec<Device>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Device {
    id: String,
    current: Numbered,
    previous: Option<Numbered>,
    next: Option<Numbered>,
}

impl Device {
    fn split(self) -> (String, Ring) {
        let Self { id, current, previous, next } = self;
        (id, Ring { current, previous, next })
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Ring {
    current: Numbered,
    previous: Option<Numbered>,
    next: Option<Numbered>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Numbered {
    id: u16,
    key: String,
}

/// The keys of a server: the store's, and those of one device at least.
pub(crate) fn of_server(path: &Path) -> Result<ServerKeys, Failure> {
    let (beacon, devices) = read(path)?;
    let mut announce = KeyMap::new();
    for (device, ring) in devices {
        if announce.insert(device, ring).is_some() {
            return Err(wrong(path, &format!("the device {device} stands twice")));
        }
    }
    if announce.is_empty() {
        return Err(wrong(path, "it holds no device's keys, so no device would be heard"));
    }
    Ok(ServerKeys { announce, beacon })
}

/// The keys of this device: the store's and its own. A device that has the keys of others is a danger to them.
pub(crate) fn of_device(path: &Path, id: NodeId) -> Result<DeviceKeys, Failure> {
    let (beacon, mut devices) = read(path)?;
    let others = devices.iter().filter(|(device, _)| *device != id).count();
    match devices.pop() {
        Some((_, announce)) if others == 0 && devices.is_empty() => Ok(DeviceKeys { announce, beacon }),
        Some(_) if others > 0 => Err(wrong(
            path,
            &format!("it holds the keys of other devices; it should hold those of {id} alone"),
        )),
        Some(_) => Err(wrong(path, &format!("the device {id} stands twice"))),
        None => Err(wrong(path, &format!("it holds no keys of the device {id}"))),
    }
}

type Rings = (KeyRing, Vec<(NodeId, KeyRing)>);

fn read(path: &Path) -> Result<Rings, Failure> {
    let cannot = |error: &std::io::Error| {
        Failure::start(
            format!("cannot read the key file {}: {error}", path.display()),
            "without its keys nothing is started; name the file with --discovery-keys",
        )
    };
    let file = File::open(path).map_err(|error| cannot(&error))?;
    check_owner(path, &file)?;
    let mut text = String::new();
    file.take(FILE_BYTES_MAX + 1).read_to_string(&mut text).map_err(|error| cannot(&error))?;
    if text.len() as u64 > FILE_BYTES_MAX {
        return Err(wrong(path, "it is larger than 16 MiB"));
    }
    parse(&text).map_err(|what| wrong(path, &what))
}

/// Nobody but the user who runs the program may read the file, or write it.
#[cfg(unix)]
fn check_owner(path: &Path, file: &File) -> Result<(), Failure> {
    use std::os::unix::fs::MetadataExt;
    let refused = |what: String| {
        let help = format!("make it yours alone: chown to this user, then chmod 600 {}", path.display());
        Err(Failure::start(format!("the key file {} {what}", path.display()), help))
    };
    let metadata = match file.metadata() {
        Ok(metadata) => metadata,
        Err(error) => return refused(format!("does not say whose it is: {error}")),
    };
    let user = rustix::process::geteuid().as_raw();
    if !metadata.is_file() {
        refused("is no file".to_owned())
    } else if metadata.uid() != user && metadata.uid() != 0 {
        refused(format!("belongs to user {}, not to {user} who runs this", metadata.uid()))
    } else if metadata.mode() & 0o077 != 0 {
        refused(format!("may be read by others (mode {:04o})", metadata.mode() & 0o7777))
    } else {
        Ok(())
    }
}

/// Who may read a file is not asked here: access lists are not looked at.
#[cfg(not(unix))]
#[expect(clippy::unnecessary_wraps, reason = "elsewhere it can fail")]
fn check_owner(_path: &Path, _file: &File) -> Result<(), Failure> {
    Ok(())
}

fn wrong(path: &Path, what: &str) -> Failure {
    Failure::start(format!("the key file {} is not usable: {what}", path.display()), HELP)
}

fn parse(text: &str) -> Result<Rings, String> {
    if text.trim().is_empty() {
        return Err("it is empty".to_owned());
    }
    let file: KeyFile = toml::from_str(text).map_err(|error| {
        let line =
            error.span().map_or(1, |span| text.get(..span.start).unwrap_or("").matches('\n').count() + 1);
        // What is quoted may be a key.
        let what = error.message().split('"').next().unwrap_or_default().trim().to_owned();
        format!("line {line}: {what}")
    })?;
    if file.version != VERSION {
        return Err(format!("its version is {}, and {VERSION} is understood", file.version));
    }
    let beacon = file.beacon.ok_or("it holds no keys of the store: [beacon] is missing")?;
    let beacon = ring(beacon).map_err(|what| format!("[beacon]: {what}"))?;
    let devices = file.device.into_iter().map(Device::split).map(|(id, keys)| {
        let id = names::node_id(&id).map_err(|what| format!("a device's id: {what}"))?;
        Ok((id, ring(keys).map_err(|what| format!("device {id}: {what}"))?))
    });
    Ok((beacon, devices.collect::<Result<_, String>>()?))
}

fn ring(ring: Ring) -> Result<KeyRing, String> {
    let Ring { current, previous, next } = ring;
    let repeated = |error: RepeatedKeyId| error.to_string();
    let mut keys = KeyRing::new(current.id, key("current", &current.key)?);
    if let Some(previous) = previous {
        keys = keys.with_previous(previous.id, key("previous", &previous.key)?).map_err(repeated)?;
    }
    if let Some(next) = next {
        keys = keys.with_next(next.id, key("next", &next.key)?).map_err(repeated)?;
    }
    Ok(keys)
}

fn key(which: &str, text: &str) -> Result<Key, String> {
    let digits: Option<Vec<u8>> =
        text.chars().map(|digit| digit.to_digit(16).and_then(|digit| u8::try_from(digit).ok())).collect();
    let digits = digits.filter(|digits| digits.len() == 2 * Key::LEN);
    let digits = digits.ok_or_else(|| format!("the {which} key is not 64 hexadecimal digits"))?;
    let mut bytes = [0; Key::LEN];
    for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
        *byte = pair[0] << 4 | pair[1];
    }
    if bytes == [0; Key::LEN] {
        return Err(format!("the {which} key is all zeros"));
    }
    Ok(Key::new(bytes))
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;

    const ID: &str = "6f9619ff8b86d011b42d00c04fc964ff";

    fn file(name: &str, text: &str) -> PathBuf {
        let path = std::env::temp_dir().join(format!("tillwire-keys-{name}-{}.toml", std::process::id()));
        std::fs::write(&path, text).unwrap();
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt;
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
        }
        path
    }

    fn text(beacon: &str, devices: &str) -> String {
        format!("version = 1\n{beacon}\n{devices}\n")
    }

    fn numbered(id: u16, byte: u8) -> String {
        format!("{{ id = {id}, key = \"{}\" }}", format!("{byte:02x}").repeat(32))
    }

    fn beacon() -> String {
        format!("[beacon]\ncurrent = {}\nnext = {}", numbered(4, 0x44), numbered(5, 0x55))
    }

    fn device(id: &str) -> String {
        format!(
            "[[device]]\nid = \"{id}\"\ncurrent = {}\nprevious = {}",
            numbered(1, 0x11),
            numbered(9, 0x99)
        )
    }

    #[test]
    fn a_file_for_a_server_and_one_for_a_device() {
        let id = names::node_id(ID).unwrap();
        let path = file("good", &text(&beacon(), &device(ID)));
        let server = of_server(&path).unwrap();
        assert_eq!((server.beacon.current_id(), server.announce.len()), (4, 1));
        let ring = server.announce.get(id).unwrap();
        assert!(ring.find(1).is_ok() && ring.find(9).is_ok() && ring.find(4).is_err());
        assert_eq!(ring.current().tag(b"x"), Key::new([0x11; 32]).tag(b"x"));
        let own = of_device(&path, id).unwrap();
        assert_eq!((own.announce.current_id(), own.beacon.current_id()), (1, 4));
        std::fs::remove_file(path).unwrap();
    }

    #[test]
    fn what_is_wrong_with_a_file_is_said_and_no_key_is_shown() {
        let other = ID.replace('6', "7");
        let (one, two) = (device(ID), format!("{}\n{}", device(ID), device(&other)));
        let cases = [
            ("", "empty"),
            (" \n", "empty"),
            ("version = 2", "version is 2"),
            ("version = 1", "[beacon] is missing"),
            (&text(&beacon(), &one.replace("current", "curent")), "line 7"),
            (&text(&beacon(), &one.replace("id = 1", "id = 70000")), "line"),
            (&text(&beacon(), &one.replace("id = 1,", "id = \"1111111111\",")), "line"),
            (&text(&beacon(), &one.replace("id = 9", "id = 1")), "the number 1"),
            (&text(&beacon(), &one.replace("1111", "11zz")), "64 hexadecimal digits"),
            (&text(&beacon(), &one.replace("1111", "111")), "64 hexadecimal digits"),
            (&text(&beacon(), &one.replace('1', "0").replace("id = 0,", "id = 1,")), "all zeros"),
            (&text(&beacon(), &one.replace(ID, "till-3")), "a device's id"),
        ];
        for (text, says) in cases {
            let path = file("wrong", text);
            let failure = of_server(&path).unwrap_err();
            assert!(failure.cause.contains(says) && failure.not_started, "{says}: {failure:?}");
            assert!(!failure.cause.contains("1111111111"), "a key is shown: {failure:?}");
            std::fs::remove_file(path).unwrap();
        }
        let id = names::node_id(ID).unwrap();
        let devices =
            [("", "no keys of"), (two.as_str(), "other devices"), (&device(&other), "other devices")];
        for (devices, says) in devices {
            let path = file("devices", &text(&beacon(), devices));
            let failure = of_device(&path, id).unwrap_err();
            assert!(failure.cause.contains(says), "{says}: {failure:?}");
            std::fs::remove_file(path).unwrap();
        }
        let path = file("twice", &text(&beacon(), &format!("{one}\n{one}")));
        assert!(of_server(&path).unwrap_err().cause.contains("stands twice"));
        let path = file("none", &text(&beacon(), ""));
        assert!(of_server(&path).unwrap_err().cause.contains("no device's keys"));
        assert!(of_server(Path::new("/nowhere/keys.toml")).unwrap_err().cause.contains("cannot read"));
    }

    #[cfg(unix)]
    #[test]
    fn a_file_others_may_read_is_refused() {
        use std::os::unix::fs::PermissionsExt;
        let path = file("open", &text(&beacon(), &device(ID)));
        for mode in [0o640, 0o604, 0o620, 0o644, 0o777] {
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
            let failure = of_server(&path).unwrap_err();
            assert!(failure.cause.contains("read by others") && failure.not_started, "{failure:?}");
        }
        std::fs::remove_file(path).unwrap();
        assert!(of_server(&std::env::temp_dir()).unwrap_err().cause.contains("no file"));
    }
}
