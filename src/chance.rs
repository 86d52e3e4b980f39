//! Randomness and names that the system gives.

use std::hash::{BuildHasher, Hasher, RandomState};

use push::order::key_of;
use wire_format::ids::{NodeId, Store};

/// 64 random bits from the standard library's seed of hash maps: unpredictable enough for lineages, boots and jitter,
/// not for keys.
pub(crate) fn random() -> u64 {
    RandomState::new().build_hasher().finish()
}

/// 16 random bytes.
pub(crate) fn random16() -> [u8; 16] {
    let wide = u128::from(random()) << 64 | u128::from(random());
    wide.to_le_bytes()
}

/// The id of a server in clear mode: the same for the same store on the same host (and bound address), so that a
/// restarted server is recognised.
pub(crate) fn server_id(store: &Store, bind: Option<std::net::Ipv4Addr>) -> NodeId {
    let bind = bind.map(|ip| ip.to_string()).unwrap_or_default();
    let name = format!("{}\u{1f}{}\u{1f}{}\u{1f}{bind}", store.entity(), store.code(), host_name());
    let (low, high) =
        (key_of(&format!("tillwire server\u{1f}{name}")), key_of(&format!("{name}\u{1f}tillwire server")));
    NodeId((u128::from(high) << 64 | u128::from(low)).to_le_bytes())
}

fn host_name() -> String {
    let file = |path: &str| std::fs::read_to_string(path).ok();
    file("/proc/sys/kernel/hostname")
        .or_else(|| file("/etc/hostname"))
        .or_else(|| std::env::var("COMPUTERNAME").ok())
        .or_else(|| std::env::var("HOSTNAME").ok())
        .map(|name| name.trim().to_owned())
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_keeps_its_id_and_differs_by_store() {
        let (paris, lyon) = (Store::new(1, "paris").unwrap(), Store::new(1, "lyon").unwrap());
        assert_eq!(server_id(&paris, None), server_id(&paris, None));
        assert_ne!(server_id(&paris, None), server_id(&lyon, None));
        assert_ne!(server_id(&paris, None), server_id(&paris, Some([127, 0, 0, 1].into())));
        assert_ne!(random16(), random16());
    }
}
