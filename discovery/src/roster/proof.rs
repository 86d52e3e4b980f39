//! Authenticated mode: whose datagram it is, and whether it is of now.
//!
//! A right tag says who made a datagram and not when. One that was not seen before, of the boot and from the address the
//! roster knows, is of now. Anything else may be a recording, however right its tag: after a cold start of this server,
//! after a boot of the device, or from another address. Its sender is asked with a cookie that is bound to all three, and
//! says the same again with that cookie inside; until then nothing changes and nothing is kept.

use wire_format::datagram::{Announce, Auth, Bye, Node, Nonce};
use wire_format::time::Instant;

use super::Roster;
use super::slot::{News, Slot};
use crate::auth::{self, Claim, Keys, NoKey, Sighting};
use crate::event::Dropped;
use crate::link::Arrival;

impl<S: AsRef<[Slot]> + AsMut<[Slot]>, K: Keys> Roster<S, K> {
    /// What one device says to its server is under that device's key.
    #[inline]
    pub(super) fn check_own(
        &mut self,
        from: &Node,
        auth: Option<Auth<'_>>,
        bytes: &[u8],
    ) -> Result<(), Dropped> {
        if !self.keys.required() {
            return self.count_unverified(auth);
        }
        auth::verify(bytes, auth, |key_id| self.keys.announce_key(from.id, key_id))?;
        self.count_authentic()
    }

    /// What is said to everybody is under the store's key.
    #[inline]
    pub(super) fn check_shared(&mut self, auth: Option<Auth<'_>>, bytes: &[u8]) -> Result<(), Dropped> {
        if !self.keys.required() {
            return self.count_unverified(auth);
        }
        auth::verify(bytes, auth, |key_id| self.beacon_keys.as_ref().ok_or(NoKey::KeyId)?.find(key_id))?;
        self.count_authentic()
    }

    #[expect(clippy::unnecessary_wraps, reason = "the last step of a check that can fail")]
    fn count_unverified(&mut self, auth: Option<Auth<'_>>) -> Result<(), Dropped> {
        let unverified = &mut self.stats.received_auth_unverified;
        *unverified = unverified.wrapping_add(u64::from(auth.is_some()));
        Ok(())
    }

    #[expect(clippy::unnecessary_wraps, reason = "the last step of a check that can fail")]
    fn count_authentic(&mut self) -> Result<(), Dropped> {
        self.stats.received_authentic = self.stats.received_authentic.wrapping_add(1);
        Ok(())
    }

    /// Whether an ANNOUNCE with a right tag is of now; `true` if it came back with its cookie. Otherwise its sender is
    /// asked, once a second and boot.
    #[inline]
    pub(super) fn check_of_now(
        &mut self,
        now: Instant,
        arrival: &Arrival,
        announce: &Announce<'_>,
        known: Option<u32>,
        len: usize,
    ) -> Result<bool, Dropped> {
        if !self.keys.required() {
            return Ok(false);
        }
        let Node { id: device, epoch, sequence, .. } = announce.from;
        let mut claim = Claim { device, epoch, source: arrival.source, proofs: 0 };
        if let Some(at) = known {
            let slot = self.table.at(at);
            claim.proofs = slot.proofs;
            let here = slot.origin.source.ip() == arrival.source.ip();
            if slot.origin.epoch == epoch {
                match slot.seen.look(sequence) {
                    Sighting::Seen => return Err(Dropped::Replayed),
                    Sighting::New if here => return Ok(false),
                    Sighting::New | Sighting::Forgotten => {}
                }
            }
        }
        if let Some(Nonce::Long([_, _, _, _, _, _, _, _, cookie @ ..])) = announce.nonce
            && self.cookies.accepts(now, &claim, cookie)
        {
            return Ok(true);
        }
        if self.cookies.may_ask(now, &claim) {
            let cookie = self.cookies.make(now, &claim);
            self.ask_for_proof(arrival, announce, len, cookie);
        }
        Err(Dropped::Unproven)
    }

    /// A datagram of a device that is here, other than an ANNOUNCE, was not seen before.
    pub(super) fn check_new(&mut self, at: u32, from: &Node) -> Result<(), Dropped> {
        let slot = self.table.at_mut(at);
        if !self.keys.required() || slot.origin.epoch != from.epoch {
            return Ok(());
        }
        if slot.seen.look(from.sequence) != Sighting::New {
            return Err(Dropped::Replayed);
        }
        slot.seen.mark(from.sequence);
        Ok(())
    }

    /// A goodbye under the device's own key, not seen before, needs no question.
    pub(super) fn obey_bye(&mut self, now: Instant, at: u32, bye: &Bye<'_>) -> Result<(), Dropped> {
        self.check_new(at, &bye.from)?;
        self.table.at_mut(at).origin.sequence = bye.from.sequence;
        self.gone(at, now, News::LEFT);
        Ok(())
    }
}
