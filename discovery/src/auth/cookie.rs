//! Who has to prove that it is alive now, and how: a number that only this server can know, sent to where the datagram
//! came from, and believed when it comes back under the device's key. Nothing is kept for it, so nothing can be filled.

use core::net::SocketAddrV4;

use wire_format::ids::NodeId;
use wire_format::time::Instant;

use crate::hash::Secret;

/// A cookie is good in the slice of time it was made in, and in the one after.
const SLICE_S: u64 = 10;
/// One boot of a device is asked once in this time, however many of its datagrams somebody recorded.
const APART_TICKS: u64 = 64;
/// Time is kept in 1/64 s here, 16 bits of it: 17 minutes.
const TICK_US: u64 = 15_625;
const TICKS: u64 = 0xFFFF;
/// Boots whose last question is remembered: 8 KiB. Two that fall on one place may be asked more often; nobody is asked
/// less often because of another.
const PLACES: usize = 1_024;

/// What a cookie is bound to.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Claim {
    /// Who it says it is.
    pub(crate) device: NodeId,
    /// In which boot.
    pub(crate) epoch: u32,
    /// Where it is.
    pub(crate) source: SocketAddrV4,
    /// How many cookies of it were accepted: each is good once.
    pub(crate) proofs: u16,
}

/// A server's cookies.
#[derive(Debug)]
pub(crate) struct Cookies {
    secret: Secret,
    /// 48 bits that tell a boot from the others that fall on this place, and when it was asked, in 1/64 s. 0: nobody.
    asked: [u64; PLACES],
}

impl Cookies {
    pub(crate) const fn new(secret: Secret) -> Self {
        Self { secret, asked: [0; PLACES] }
    }

    /// The cookie for this claim, now.
    pub(crate) fn make(&self, now: Instant, claim: &Claim) -> [u8; 8] {
        self.of_slice(now.as_millis() / 1_000 / SLICE_S, claim)
    }

    /// Whether this is a cookie for this claim, of now or of a moment ago.
    pub(crate) fn accepts(&self, now: Instant, claim: &Claim, cookie: [u8; 8]) -> bool {
        let slice = now.as_millis() / 1_000 / SLICE_S;
        cookie == self.of_slice(slice, claim)
            || slice > 0 && cookie == self.of_slice(slice.wrapping_sub(1), claim)
    }

    fn of_slice(&self, slice: u64, claim: &Claim) -> [u8; 8] {
        let source = u64::from(claim.source.ip().to_bits()) << 16 | u64::from(claim.source.port());
        let boot = u64::from(claim.epoch) << 16 | u64::from(claim.proofs);
        self.secret.cookie_of(claim.device, [boot, source, slice])
    }

    /// Whether this boot may be asked now; if so, it was.
    pub(crate) fn may_ask(&mut self, now: Instant, claim: &Claim) -> bool {
        let boot =
            u64::from_le_bytes(self.secret.cookie_of(claim.device, [u64::from(claim.epoch), 0, u64::MAX]));
        let at = usize::try_from(boot % PLACES as u64).unwrap_or(0);
        let Some(place) = self.asked.get_mut(at) else { return false };
        let (boot, tick) = (boot & !TICKS | 1 << 16, (now.as_micros() / TICK_US) & TICKS);
        if *place & !TICKS == boot && tick.wrapping_sub(*place) & TICKS <= APART_TICKS {
            return false;
        }
        *place = boot | tick;
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{address, id};

    const CLAIM_PROOFS: u16 = 3;

    fn claim() -> Claim {
        Claim { device: id(1), epoch: 7, source: address(1), proofs: CLAIM_PROOFS }
    }

    #[test]
    fn a_cookie_is_bound_to_device_boot_source_and_count_and_ages() {
        let cookies = Cookies::new(Secret::new(1));
        let at = Instant::from_millis;
        let cookie = cookies.make(at(25_000), &claim());
        assert!(cookies.accepts(at(25_000), &claim(), cookie));
        assert!(cookies.accepts(at(39_999), &claim(), cookie));
        assert!(!cookies.accepts(at(40_000), &claim(), cookie), "two slices later");
        assert!(!cookies.accepts(at(19_999), &claim(), cookie), "a slice earlier");
        for other in [
            Claim { device: id(2), ..claim() },
            Claim { epoch: 8, ..claim() },
            Claim { source: address(2), ..claim() },
            Claim { source: SocketAddrV4::new(*address(1).ip(), 1), ..claim() },
            Claim { proofs: CLAIM_PROOFS + 1, ..claim() },
        ] {
            assert!(!cookies.accepts(at(25_000), &other, cookie), "{other:?}");
        }
        assert!(!Cookies::new(Secret::new(2)).accepts(at(25_000), &claim(), cookie));
    }

    #[test]
    fn one_boot_is_asked_once_a_second_and_nobody_for_another() {
        let mut cookies = Cookies::new(Secret::new(1));
        let asked: Vec<u64> =
            (0..10_000).filter(|ms| cookies.may_ask(Instant::from_millis(*ms), &claim())).collect();
        assert!(asked.windows(2).all(|pair| (1_000..1_040).contains(&(pair[1] - pair[0]))), "{asked:?}");
        assert_eq!(asked.len(), 10);
        for number in 0..10_000 {
            let other = Claim { device: id(number), ..claim() };
            assert!(number == 1 || cookies.may_ask(Instant::from_millis(20_000), &other), "{number}");
        }
    }
}
