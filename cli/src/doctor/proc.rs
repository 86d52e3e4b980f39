//! What Linux tells of sockets and processes under /proc. Elsewhere there is nothing to read, and it is said so.

use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::collections::{BTreeMap, BTreeSet};
use std::fs;

/// A socket with a local port, as `/proc/net/{udp,udp6,tcp,tcp6}` lists it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Entry {
    /// Its address here.
    pub(crate) address: IpAddr,
    /// Its port here.
    pub(crate) port: u16,
    /// TCP: it listens.
    pub(crate) listens: bool,
    /// The user it belongs to.
    pub(crate) user: u32,
    /// Its number in the file system of sockets.
    pub(crate) inode: u64,
    /// UDP: datagrams it had no room for.
    pub(crate) drops: u64,
}

/// Who has a socket.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Owner {
    /// The process.
    pub(crate) pid: u32,
    /// Its name, as `ps` shows it.
    pub(crate) name: String,
}

/// The state of a listening TCP socket.
const LISTEN: &str = "0A";

/// Reads a table of sockets; lines that are none are left out.
pub(crate) fn sockets(text: &str) -> Vec<Entry> {
    text.lines().skip(1).filter_map(entry).collect()
}

fn entry(line: &str) -> Option<Entry> {
    let words: Vec<&str> = line.split_ascii_whitespace().collect();
    let (address, port) = words.get(1)?.split_once(':')?;
    Some(Entry {
        address: self::address(address)?,
        port: u16::from_str_radix(port, 16).ok()?,
        listens: words.get(3) == Some(&LISTEN),
        user: words.get(7)?.parse().ok()?,
        inode: words.get(9)?.parse().ok()?,
        drops: words.get(12).and_then(|drops| drops.parse().ok()).unwrap_or(0),
    })
}

/// Addresses stand there as words of this machine's byte order.
fn address(hex: &str) -> Option<IpAddr> {
    let word = |at: usize| {
        let digits = hex.get(at * 8..at * 8 + 8)?;
        u32::from_str_radix(digits, 16).ok().map(u32::to_ne_bytes)
    };
    match hex.len() {
        8 => Some(IpAddr::V4(Ipv4Addr::from(word(0)?))),
        32 => {
            let mut bytes = [0; 16];
            for (at, four) in bytes.chunks_exact_mut(4).enumerate() {
                four.copy_from_slice(&word(at)?);
            }
            let wide = Ipv6Addr::from(bytes);
            Some(wide.to_ipv4_mapped().map_or(IpAddr::V6(wide), IpAddr::V4))
        }
        _ => None,
    }
}

/// The sockets of this host (of this network namespace) on a port; `transport` is `udp` or `tcp`. `None` without /proc.
pub(crate) fn on_port(transport: &str, port: u16) -> Option<Vec<Entry>> {
    let read = |table: &str| fs::read_to_string(format!("/proc/net/{table}"));
    let mut found = sockets(&read(transport).ok()?);
    // A kernel without IPv6 has no second table.
    found.extend(sockets(&read(&format!("{transport}6")).unwrap_or_default()));
    found.retain(|entry| entry.port == port);
    Some(found)
}

/// The processes that have these sockets, as far as this user may look.
pub(crate) fn owners(inodes: &BTreeSet<u64>) -> BTreeMap<u64, BTreeSet<Owner>> {
    let mut found = BTreeMap::<u64, BTreeSet<Owner>>::new();
    if inodes.is_empty() {
        return found;
    }
    for pid in pids() {
        let files = fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten();
        for file in files {
            let Ok(target) = fs::read_link(file.path()) else { continue };
            let inode = target.to_str().and_then(socket_inode);
            if let Some(inode) = inode.filter(|inode| inodes.contains(inode)) {
                found.entry(inode).or_default().insert(Owner { pid, name: process_name(pid) });
            }
        }
    }
    found
}

/// `socket:[12345]`.
fn socket_inode(target: &str) -> Option<u64> {
    target.strip_prefix("socket:[")?.strip_suffix(']')?.parse().ok()
}

/// The numbers of all processes.
pub(crate) fn pids() -> Vec<u32> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect()
}

/// What `ps` shows of a process; `?` if it has gone.
pub(crate) fn process_name(pid: u32) -> String {
    fs::read_to_string(format!("/proc/{pid}/comm"))
        .map_or_else(|_| "?".to_owned(), |name| name.trim().to_owned())
}

/// A number of /proc/sys, such as `net/core/rmem_max`.
pub(crate) fn setting(name: &str) -> Option<u64> {
    fs::read_to_string(format!("/proc/sys/{name}")).ok()?.trim().parse().ok()
}

/// The most open files a process may have, of its `/proc/PID/limits`: at present, and as high as it may raise it.
pub(crate) fn open_files(limits: &str) -> Option<(u64, u64)> {
    let line = limits.lines().find_map(|line| line.strip_prefix("Max open files"))?;
    let number = |word: &str| if word == "unlimited" { Some(u64::MAX) } else { word.parse().ok() };
    let mut words = line.split_ascii_whitespace();
    Some((number(words.next()?)?, number(words.next()?)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    const UDP: &str = "\
  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode ref pointer drops
 1147: 00000000:E1FE 00000000:0000 07 00000000:00000000 00:00000000 00000000  1000        0 41234 2 0000000000000000 17
 2048: FF00000A:E1FE 00000000:0000 07 00000000:00000000 00:00000000 00000000     0        0 41235 2 0000000000000000 0
 cut";
    const TCP6: &str = "\
  sl  local_address                         remote_address                        st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 00000000000000000000000000000000:1F91 00000000000000000000000000000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 777 1 0000000000000000 100 0 0 10 0
   1: 0000000000000000FFFF00000100007F:1F91 0000000000000000FFFF00000200007F:C350 01 00000000:00000000 00:00000000 00000000    33        0 778 1 0000000000000000 20 4 30 10 -1";

    #[test]
    #[cfg(target_endian = "little")]
    fn tables_of_sockets() {
        let found = sockets(UDP);
        assert_eq!(found.len(), 2);
        let first = Entry {
            address: "0.0.0.0".parse().unwrap(),
            port: 57_854,
            listens: false,
            user: 1_000,
            inode: 41_234,
            drops: 17,
        };
        assert_eq!(found[0], first);
        assert_eq!(found[1].address.to_string(), "10.0.0.255");
        let found = sockets(TCP6);
        assert_eq!((found[0].port, found[0].listens, found[0].inode), (8_081, true, 777));
        assert_eq!((found[1].address.to_string(), found[1].listens), ("127.0.0.1".to_owned(), false));
        assert!(sockets("").is_empty() && sockets("heading\n: : : : :").is_empty());
    }

    #[test]
    fn the_owner_of_a_socket_is_found() {
        if !fs::exists("/proc/net/udp").unwrap_or(false) {
            println!("skipped: no /proc/net/udp");
            return;
        }
        let socket = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        let port = socket.local_addr().unwrap().port();
        let found = on_port("udp", port).unwrap();
        assert_eq!(found.len(), 1, "{found:?}");
        let owners = owners(&[found[0].inode].into());
        let owner = owners[&found[0].inode].iter().next().unwrap();
        assert_eq!(owner.pid, std::process::id());
        assert_eq!(owner.name, process_name(std::process::id()));
    }

    #[test]
    fn limits_of_a_process() {
        let text = "Limit                     Soft Limit           Hard Limit           Units     \n\
                    Max processes             63450                63450                processes \n\
                    Max open files            1024                 524288               files     \n";
        assert_eq!(open_files(text), Some((1_024, 524_288)));
        assert_eq!(open_files("Max open files  unlimited unlimited files"), Some((u64::MAX, u64::MAX)));
        assert_eq!(open_files("Max open files"), None);
        assert_eq!(socket_inode("socket:[12]"), Some(12));
        assert_eq!(socket_inode("pipe:[12]"), None);
    }
}
