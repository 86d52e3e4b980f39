//! Large payloads: the server cuts them into pieces, and the driver of a device puts them together again.

use std::time::Duration;

use push::receiver::{Piece, Ticket};
use wire_format::ids::Lane;
use wire_format::rng::{Rng, mix};

use super::fault::{Fault, FaultSpec};
use super::names::Probe;
use super::network::LinkId;
use super::plan::{MS, OrderSpec, Plan, SECOND, Scene, Whom};
use super::world::World;

/// What a device takes at least that takes pieces.
const MAX_BODY: u32 = 6_000;
/// Large orders in a run that has some, and how many payloads they share.
const ORDERS: u64 = 4;
const PAYLOADS: u64 = 2;
/// Bytes of a payload, where the network gives many bytes at a time and where it gives few.
const SIZES: (u64, u64) = (90_000, 12_000);

/// The one payload that a device puts together.
#[derive(Debug, Default)]
pub(super) struct Pieces {
    ticket: Option<Ticket>,
    /// The connection that the last piece came over.
    link: Option<LinkId>,
    bytes: Vec<u8>,
    size: u32,
    /// After so many further pieces the connection is cut, or the power for so long.
    cut: Option<(u32, Option<Duration>)>,
}

impl Pieces {
    /// The payload of this order, if it came in pieces.
    pub(super) fn of(&self, ticket: Ticket) -> Option<&[u8]> {
        (self.ticket == Some(ticket)).then_some(&self.bytes)
    }

    pub(super) const fn cut_after(&mut self, pieces: u32, power: Option<Duration>) {
        self.cut = Some((pieces, power));
    }

    /// Whether some came and some are missing.
    pub(super) fn is_partial(&self) -> bool {
        !self.bytes.is_empty() && self.bytes.len() < self.size as usize
    }
}

/// A piece, and its bytes.
#[derive(Debug)]
pub(super) struct Came {
    ticket: Ticket,
    size: u32,
    offset: u32,
    bytes: Vec<u8>,
    sha256: Option<[u8; 32]>,
}

impl From<Piece<'_>> for Came {
    fn from(piece: Piece<'_>) -> Self {
        let Piece { ticket, size, offset, bytes, sha256, .. } = piece;
        Self { ticket, size, offset, bytes: bytes.to_vec(), sha256 }
    }
}

/// What the drivers say in place of a digest: the core compares nothing.
pub(super) fn digest(bytes: &[u8]) -> [u8; 32] {
    let sum = bytes.iter().fold(bytes.len() as u64, |sum, byte| mix(sum ^ u64::from(*byte)));
    let mut digest = [0; 32];
    for (at, part) in (0..).zip(digest.chunks_exact_mut(8)) {
        part.copy_from_slice(&mix(sum ^ at).to_le_bytes());
    }
    digest
}

/// The name of a payload: the same for the same bytes, as servers give it, and never 0.
pub(super) const fn blob_of(payload: u64, len: usize) -> u64 {
    mix(payload ^ (len as u64) << 32) | 1
}

/// Few runs have large orders, from a generator of their own: all other runs are what they are without them.
pub(super) fn draw_large(plan: &mut Plan) {
    let mut rng = Rng::new(mix(plan.seed ^ 0xB10B));
    if !matches!(plan.scene, Scene::Small | Scene::Large) || rng.below(8) != 0 || plan.orders.is_empty() {
        return;
    }
    for device in plan.devices.iter_mut().filter(|device| !device.small) {
        // Some are told that such orders are too large for them.
        device.parts = rng.below(6) != 0;
        device.max_body = device.max_body.max(if device.parts { MAX_BODY } else { 0 });
    }
    for _ in 0..2 * plan.devices.len() {
        let device = rng.below(plan.devices.len() as u64) as usize;
        let power = (rng.below(3) == 0).then(|| rng.between(MS * 50, SECOND * 2));
        let fault = Fault::PieceCut { device, after: rng.below(4) as u32, power };
        plan.faults.push(FaultSpec { at: rng.between(Duration::ZERO, plan.storm), fault });
    }
    let most = if plan.chunk >= 100 { SIZES.0 } else { SIZES.1 };
    let lens: Vec<_> = (0..PAYLOADS).map(|_| 64 + rng.below(most) as usize).collect();
    for _ in 0..ORDERS {
        let payload = rng.below(PAYLOADS);
        let at = rng.below(plan.orders.len() as u64) as usize;
        // Two of them together ask for the same bytes one after the other.
        for order in plan.orders.iter_mut().skip(at).take(1 + rng.below(2) as usize) {
            make_large(order, payload, lens[payload as usize]);
            if plan.scene == Scene::Large {
                order.whom = Whom::Percent(10);
            }
        }
    }
}

fn make_large(order: &mut OrderSpec, payload: u64, len: usize) {
    (order.lane, order.versioned, order.large, order.len) = (Lane::Bulk, None, Some(payload), len);
}

impl World {
    /// A piece came: with the last one the whole payload is compared.
    pub(super) fn take_piece(&mut self, at: usize, link: LinkId, piece: &Came) {
        let now = self.now;
        let pieces = &mut self.devices[at].pieces;
        if piece.offset == 0 {
            let again = pieces.of(piece.ticket).is_some();
            let (ticket, size, cut) = (Some(piece.ticket), piece.size, pieces.cut);
            *pieces = Pieces { ticket, size, cut, ..Pieces::default() };
            if again {
                self.ledger.fail(now, "PiecesForgotten", Some(at), &[], "the first one comes again");
            }
        }
        let pieces = &mut self.devices[at].pieces;
        if pieces.ticket != Some(piece.ticket) || piece.offset as usize != pieces.bytes.len() {
            let detail = format_args!("at {}, and {} bytes are there", piece.offset, pieces.bytes.len());
            return self.ledger.fail(now, "PieceOutOfOrder", Some(at), &[], detail);
        }
        pieces.bytes.extend_from_slice(&piece.bytes);
        let goes_on = pieces.link.replace(link).is_some_and(|before| before != link);
        let matches = piece.sha256.map(|announced| digest(&pieces.bytes) == announced);
        if goes_on {
            self.probe(Probe::PiecesGoOn);
        }
        let Some(matches) = matches else { return self.cut_in_pieces(at) };
        self.probe(Probe::InPieces);
        if !matches {
            self.ledger.fail(now, "OtherPayload", Some(at), &[], "the pieces are not what was pushed");
        }
        if let Some(receiver) = &mut self.devices[at].receiver {
            receiver.verified(now, piece.ticket, matches);
        }
    }

    /// It may have been the last piece of this connection, or of this boot.
    fn cut_in_pieces(&mut self, at: usize) {
        match &mut self.devices[at].pieces.cut {
            Some((0, power)) => {
                let power = *power;
                self.devices[at].pieces.cut = None;
                match power {
                    Some(away) => self.crash_device(at, true, away),
                    None => {
                        let silent = self.chance(30);
                        self.cut(at, silent);
                    }
                }
            }
            Some((left, _)) => *left -= 1,
            None => {}
        }
    }
}
