//! Whether this host has a name of its own. In clear mode a server without a state directory draws its id from the store
//! and the host's name: two hosts named `localhost` would be one server, and a host that is renamed another one.

use super::host::Host;
use super::report::{Check, Line};

const CHECK: Check = Check::Identity;
/// Names that systems have before somebody gives them one.
const NO_NAMES: [&str; 7] =
    ["localhost", "localhost.localdomain", "debian", "ubuntu", "raspberrypi", "(none)", ""];

/// One line.
pub(crate) async fn check(host: &Host) -> Vec<Line> {
    let name = rustix::system::uname().nodename().to_string_lossy().into_owned();
    let kept = host.state.as_ref().is_some_and(|dir| dir.join("id").is_file());
    vec![judge(&name, kept)]
}

fn judge(name: &str, kept: bool) -> Line {
    if kept {
        let detail = "the server's id is kept in the state directory, whatever this host is called";
        return Line::pass(CHECK, "", detail);
    }
    if NO_NAMES.contains(&name.to_ascii_lowercase().as_str()) {
        return Line::warn(
            CHECK,
            "",
            format!(
                "this host is named {name:?}, as many others are: a server's id comes from the store and this name, so two of \
                 them in one store would be taken for one"
            ),
            "Linux: hostnamectl set-hostname STORE-SERVER-1; or keep the id with --state DIR\n\
             Windows: Rename-Computer -NewName STORE-SERVER-1",
        );
    }
    if name.len() == 12 && name.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f')) {
        return Line::warn(
            CHECK,
            "",
            format!("named {name:?}, as containers are: the next container is another server to its devices"),
            "give the container a name of its own (docker run --hostname NAME), or keep the id with --state DIR",
        );
    }
    let detail = format!("named {name:?}: a server keeps its id as long as the store and this name stay");
    Line::pass(CHECK, "", detail)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::report::Grade;

    #[test]
    fn names_of_hosts() {
        assert_eq!(judge("localhost", false).grade, Grade::Warn);
        assert_eq!(judge("LOCALHOST", false).grade, Grade::Warn);
        assert_eq!(judge("localhost", true).grade, Grade::Pass);
        assert_eq!(judge("3f2a90b1c4d5", false).grade, Grade::Warn);
        assert_eq!(judge("paris-12-a", false).grade, Grade::Pass);
    }
}
