//! How many datagrams the system threw away because a socket's queue was full.

use core::net::{Ipv4Addr, SocketAddrV4};

/// Datagrams dropped so far at the sockets bound to exactly this address, on this network namespace; `None` if there is no
/// such socket, or the system does not tell.
#[must_use]
pub fn receive_drops(at: SocketAddrV4) -> Option<u64> {
    sum(&std::fs::read_to_string("/proc/self/net/udp").ok()?, at)
}

fn sum(table: &str, at: SocketAddrV4) -> Option<u64> {
    let drops = table.lines().skip(1).filter_map(|line| {
        let mut words = line.split_whitespace();
        let local = words.nth(1)?;
        (address(local)? == at).then(|| words.last()?.parse::<u64>().ok())?
    });
    drops.fold(None, |sum: Option<u64>, drops| Some(sum.unwrap_or(0) + drops))
}

/// `0100007F:1F91`: the four bytes as the machine reads them as a number, then the port.
fn address(text: &str) -> Option<SocketAddrV4> {
    let (ip, port) = text.split_once(':')?;
    let ip = u32::from_str_radix(ip, 16).ok()?;
    Some(SocketAddrV4::new(Ipv4Addr::from(ip.to_ne_bytes()), u16::from_str_radix(port, 16).ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_socket_that_overflows_is_seen_to() {
        let socket = std::net::UdpSocket::bind("127.58.255.1:0").unwrap();
        let std::net::SocketAddr::V4(at) = socket.local_addr().unwrap() else { panic!("IPv4") };
        assert_eq!(receive_drops(at), Some(0));
        socket2::SockRef::from(&socket).set_recv_buffer_size(4_096).unwrap();
        for _ in 0..200 {
            socket.send_to(&[0; 100], at).unwrap();
        }
        assert!(receive_drops(at).is_some_and(|drops| drops > 100));
        drop(socket);
        assert_eq!(receive_drops(at), None);
    }
}
