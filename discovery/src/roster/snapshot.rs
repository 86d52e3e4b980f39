//! A roster on paper: written piece by piece without memory of its own, and read back at the next start.
//!
//! A snapshot is a header and one record for each device, lost and left ones included. All numbers are little-endian. It
//! never crosses the network: it is this library's own, and another version of it may write another one.
//!
//! The header, 68 bytes:
//!
//! | offset | size | field | rule |
//! | --- | --- | --- | --- |
//! | 0 | 4 | magic | the bytes `TWLR` |
//! | 4 | 2 | version | 1 |
//! | 6 | 2 | record length | 232 |
//! | 8 | 4 | records | how many follow |
//! | 12 | 4 | flags | 0x01 staging; the rest zero |
//! | 16 | 8 | generation | of the last event told |
//! | 24 | 4 | legal entity | the store's |
//! | 28 | 4 | code length | bytes of the store code |
//! | 32 | 32 | store code | zeros behind it |
//! | 64 | 4 | checksum | CRC-32C of bytes 0 to 64 |
//!
//! A record, 232 bytes:
//!
//! | offset | size | field | rule |
//! | --- | --- | --- | --- |
//! | 0 | 16 | node id | |
//! | 16 | 4 | address | where it spoke from, in network order |
//! | 20 | 2 | source port | the same |
//! | 22 | 2 | push port | as it announced |
//! | 24 | 2 | kind | |
//! | 26 | 1 | state | 0 here, 1 lost, 2 left |
//! | 27 | 1 | flags | 0x01 zone, 0x02 firmware, 0x04 caps are known, 0x08 it had a push session; the rest zero |
//! | 28 | 4 | boot epoch | |
//! | 32 | 4 | sequence | of its last statement |
//! | 36 | 4 | newest sequence | seen of that boot under its key |
//! | 40 | 2 | key id | under which it spoke last, 0 for none |
//! | 42 | 1 | services | how many, at most 8 |
//! | 43 | 1 | name length | at most 32 |
//! | 44 | 1 | code length | at most 16 |
//! | 45 | 1 | tags length | at most 48 |
//! | 46 | 2 | | zero |
//! | 48 | 4 | zone | |
//! | 52 | 4 | firmware version | |
//! | 56 | 4 | firmware build | |
//! | 60 | 8 | caps | |
//! | 68 | 32 | name | zeros behind it, here and below |
//! | 100 | 16 | code | |
//! | 116 | 48 | tags | packed as on the wire |
//! | 164 | 64 | services | as on the wire |
//! | 228 | 4 | checksum | CRC-32C of the header's checksum and bytes 0 to 228 |
//!
//! Records have one size and a checksum of their own, so a damaged one costs itself and no other. The checksum begins with
//! the header's: a record of another snapshot is a damaged one.

use core::net::{Ipv4Addr, SocketAddrV4};

use wire_format::bytes::{bytes16_at, put_bytes16, put_u16, put_u32, put_u64, u8_at, u16_at, u32_at, u64_at};
use wire_format::crc;
use wire_format::datagram::{Firmware, Service, service::SERVICE_LEN};
use wire_format::ids::{DeviceKind, NodeId, Store, Tags, Text};
use wire_format::time::Instant;

use super::Roster;
use super::slot::{News, Origin, Past, Record, Slot, State};
use super::table::Queue;
use crate::auth::{Keys, Window};
use crate::config::{SERVICES_MAX, ServerConfig, Services};
use crate::link::{LinkId, answerable};

/// Bytes of a snapshot's header.
pub const HEADER_LEN: usize = 68;
/// Bytes of one device in a snapshot; no piece is longer.
pub const RECORD_LEN: usize = 232;

const MAGIC: [u8; 4] = *b"TWLR";
const VERSION: u16 = 1;
const STAGING: u32 = 0x01;
const ZONE: u8 = 0x01;
const FIRMWARE: u8 = 0x02;
const CAPS: u8 = 0x04;
const SERVED: u8 = 0x08;
/// Bytes under the checksum.
const SUMMED_HEADER: usize = HEADER_LEN - 4;
const SUMMED_RECORD: usize = RECORD_LEN - 4;

const _: () = assert!(164 + SERVICES_MAX * SERVICE_LEN == SUMMED_RECORD);
const _: () = assert!(HEADER_LEN <= RECORD_LEN);

/// Why a snapshot is not taken. What it holds of devices is looked at afterwards, record by record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SnapshotError {
    /// Shorter than a header.
    #[error("{len} bytes are too few for a snapshot's header")]
    Truncated {
        /// Bytes there are.
        len: usize,
    },
    /// Something else.
    #[error("not a roster's snapshot")]
    Foreign,
    /// Of a version this library does not read.
    #[error("a snapshot of version {found}, which is not read here")]
    Version {
        /// The version.
        found: u16,
    },
    /// The header is not as it was written.
    #[error("the snapshot's header is damaged")]
    Damaged,
    /// Another store's devices.
    #[error("a snapshot of store {found}")]
    OtherStore {
        /// That store.
        found: Store,
    },
    /// Staging met production.
    #[error("a snapshot of {}", if *.staging { "a staging server" } else { "a production server" })]
    OtherSide {
        /// The snapshot is of a staging server.
        staging: bool,
    },
}

/// What came back out of a snapshot.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Restored {
    /// Devices that are [`State::Unconfirmed`] now.
    pub unconfirmed: u32,
    /// Devices that were gone, and are known to be.
    pub gone: u32,
    /// Records that were damaged.
    pub damaged: u32,
    /// Records that should have been there and were not.
    pub missing: u32,
    /// Devices the roster had no room for.
    pub full: u32,
    /// Devices beyond those allowed at one address.
    pub crowded: u32,
    /// Devices the roster knew already.
    pub known: u32,
}

/// Writes a roster, piece by piece: [`Roster::snapshot`].
#[derive(Clone, Debug)]
pub struct Snapshot<'a> {
    slots: core::slice::Iter<'a, Slot>,
    header: Option<[u8; HEADER_LEN]>,
    seed: u32,
    left: u32,
}

impl Snapshot<'_> {
    /// Bytes still to be written.
    #[expect(clippy::len_without_is_empty, reason = "it ends by saying so")]
    #[must_use]
    pub fn len(&self) -> usize {
        let header = if self.header.is_some() { HEADER_LEN } else { 0 };
        (self.left as usize).saturating_mul(RECORD_LEN).saturating_add(header)
    }

    /// The next piece, in the caller's buffer; `None` after the last.
    pub fn next_piece<'b>(&mut self, buffer: &'b mut [u8; RECORD_LEN]) -> Option<&'b [u8]> {
        if let Some(header) = self.header.take() {
            let piece = buffer.get_mut(..HEADER_LEN)?;
            piece.copy_from_slice(&header);
            return Some(piece);
        }
        let slot = self.slots.by_ref().find(|slot| slot.state().is_some())?;
        self.left = self.left.saturating_sub(1);
        encode(slot, self.seed, buffer);
        Some(buffer)
    }
}

/// Reads a snapshot into a roster, record by record: [`Roster::restore_from`].
#[derive(Debug)]
pub struct Restore<'a, S, K> {
    roster: &'a mut Roster<S, K>,
    now: Instant,
    seed: u32,
    /// Records still to come.
    left: u32,
    restored: Restored,
}

impl<S: AsRef<[Slot]> + AsMut<[Slot]>, K: Keys> Restore<'_, S, K> {
    /// Takes the next record, all of it or what there is of it. What is beyond the number in the header is left alone.
    pub fn take(&mut self, record: &[u8]) {
        if self.left == 0 {
            return;
        }
        self.left = self.left.saturating_sub(1);
        let entry = <&[u8; RECORD_LEN]>::try_from(record).ok().and_then(|record| decode(record, self.seed));
        let own = self.roster.config.id;
        let counter = match entry.filter(|entry| entry.id != own) {
            None => &mut self.restored.damaged,
            Some(entry) => match self.roster.put_back(self.now, entry) {
                PutBack::Unconfirmed => &mut self.restored.unconfirmed,
                PutBack::Gone => &mut self.restored.gone,
                PutBack::Full => &mut self.restored.full,
                PutBack::Crowded => &mut self.restored.crowded,
                PutBack::Known => &mut self.restored.known,
            },
        };
        *counter = counter.saturating_add(1);
    }

    /// What has come back so far; what was not taken is missing.
    #[must_use]
    pub const fn restored(&self) -> Restored {
        Restored { missing: self.left, ..self.restored }
    }
}

impl<S: AsRef<[Slot]> + AsMut<[Slot]>, K: Keys> Roster<S, K> {
    /// Everything this roster knows of its devices, to be written somewhere and given to [`Roster::restore`] at the next
    /// start. Nothing changes by it.
    ///
    /// ```
    /// # use discovery::{Roster, ServerConfig, Slot};
    /// # use wire_format::{ids::{NodeId, Store}, time::Instant};
    /// # let config = ServerConfig::new(NodeId([7; 16]), Store::new(1, "PARIS-12")?);
    /// # let now = Instant::ZERO;
    /// # let roster = Roster::new(config.clone(), [Slot::EMPTY; 4], now, 1);
    /// let (mut snapshot, mut buffer, mut file) = (roster.snapshot(), [0; discovery::roster::RECORD_LEN], Vec::new());
    /// while let Some(piece) = snapshot.next_piece(&mut buffer) {
    ///     file.extend_from_slice(piece);
    /// }
    /// let mut next = Roster::new(config, [Slot::EMPTY; 4], now, 2);
    /// assert_eq!(next.restore(now, &file).map(|restored| restored.unconfirmed), Ok(0));
    /// # Ok::<(), wire_format::ids::IdError>(())
    /// ```
    pub fn snapshot(&self) -> Snapshot<'_> {
        let left = self.table.capacity().saturating_sub(self.table.len_u32(Queue::Free));
        let header = header(&self.config, self.generation, left);
        let seed = u32_at::<SUMMED_HEADER, HEADER_LEN>(&header);
        Snapshot { slots: self.table.slots().iter(), header: Some(header), seed, left }
    }

    /// Takes back what a roster knew before: [`Roster::restore_from`] for a snapshot that lies in one piece.
    pub fn restore(&mut self, now: Instant, snapshot: &[u8]) -> Result<Restored, SnapshotError> {
        let (header, records) = snapshot.split_at(snapshot.len().min(HEADER_LEN));
        let mut restore = self.restore_from(now, header)?;
        for record in records.chunks(RECORD_LEN) {
            restore.take(record);
        }
        Ok(restore.restored())
    }

    /// Takes back what a roster of this store knew before; the records follow, one by one.
    ///
    /// Devices that were here are [`State::Unconfirmed`] until they are heard, and lost if that takes longer than a lease;
    /// nothing is told of them before. They make a census needless, and the reply window wide enough for all of them. Those
    /// that were gone are gone. The generation goes on from the snapshot's; events that were told after it was taken, and
    /// before a crash, have their numbers twice.
    ///
    /// Meant for a roster at its start; later, what it knows already stays as it is.
    pub fn restore_from(&mut self, now: Instant, header: &[u8]) -> Result<Restore<'_, S, K>, SnapshotError> {
        self.advance(now);
        let header = read_header(header)?;
        if header.staging != self.config.staging {
            return Err(SnapshotError::OtherSide { staging: header.staging });
        }
        if header.store != self.config.store {
            return Err(SnapshotError::OtherStore { found: header.store });
        }
        self.generation = self.generation.max(header.generation);
        let (seed, left) = (header.seed, header.records);
        Ok(Restore { roster: self, now, seed, left, restored: Restored::default() })
    }

    /// One device as it was known.
    fn put_back(&mut self, now: Instant, entry: Entry) -> PutBack {
        let gone = entry.state != State::Unconfirmed;
        if self.table.find(entry.id).is_some() {
            return PutBack::Known;
        }
        let host = *entry.origin.source.ip();
        if !gone && self.table.devices_at(host) >= usize::from(self.config.devices_per_address) {
            return PutBack::Crowded;
        }
        let Some(at) = self.table.head(Queue::Free) else { return PutBack::Full };
        self.table.claim(at, entry.id, entry.origin);
        let slot = self.table.at_mut(at);
        slot.record = entry.record;
        slot.past.set(Past::SERVED, entry.served);
        slot.seen = Window::after(entry.newest);
        slot.key_id = entry.key_id;
        slot.told_epoch = entry.origin.epoch;
        slot.told_address = entry.origin.push_address();
        slot.heard = now;
        if gone {
            slot.past.set(Past::DOUBT_TOLD, true);
            self.gone(at, now, if entry.state == State::Left { News::LEFT } else { News::LOST });
            self.hush(at);
            return PutBack::Gone;
        }
        self.wait_for(at, now);
        self.beacons.skip_census();
        PutBack::Unconfirmed
    }
}

/// What became of a record.
enum PutBack {
    Unconfirmed,
    Gone,
    Full,
    Crowded,
    Known,
}

/// A header that is right.
struct Header {
    records: u32,
    staging: bool,
    generation: u64,
    store: Store,
    seed: u32,
}

fn header(config: &ServerConfig, generation: u64, records: u32) -> [u8; HEADER_LEN] {
    let mut bytes = [0; HEADER_LEN];
    let code = config.store.code().as_bytes();
    put_u32::<0, HEADER_LEN>(&mut bytes, u32::from_le_bytes(MAGIC));
    put_u16::<4, HEADER_LEN>(&mut bytes, VERSION);
    put_u16::<6, HEADER_LEN>(&mut bytes, RECORD_LEN as u16);
    put_u32::<8, HEADER_LEN>(&mut bytes, records);
    put_u32::<12, HEADER_LEN>(&mut bytes, if config.staging { STAGING } else { 0 });
    put_u64::<16, HEADER_LEN>(&mut bytes, generation);
    put_u32::<24, HEADER_LEN>(&mut bytes, config.store.entity());
    put_u32::<28, HEADER_LEN>(&mut bytes, u32::try_from(code.len()).unwrap_or(0));
    put::<32, 32, HEADER_LEN>(&mut bytes, code);
    let sum = crc::crc32c(bytes.first_chunk::<SUMMED_HEADER>().unwrap_or(&[0; SUMMED_HEADER]));
    put_u32::<SUMMED_HEADER, HEADER_LEN>(&mut bytes, sum);
    bytes
}

fn read_header(bytes: &[u8]) -> Result<Header, SnapshotError> {
    let Some((magic, rest)) = bytes.split_first_chunk::<4>() else {
        return Err(SnapshotError::Truncated { len: bytes.len() });
    };
    if *magic != MAGIC {
        return Err(SnapshotError::Foreign);
    }
    if let Some(version) = rest.first_chunk().map(|version| u16::from_le_bytes(*version))
        && version != VERSION
    {
        return Err(SnapshotError::Version { found: version });
    }
    let bytes: &[u8; HEADER_LEN] =
        bytes.try_into().map_err(|_| SnapshotError::Truncated { len: bytes.len() })?;
    let summed = bytes.first_chunk::<SUMMED_HEADER>().unwrap_or(&[0; SUMMED_HEADER]);
    let seed = u32_at::<SUMMED_HEADER, HEADER_LEN>(bytes);
    let flags = u32_at::<12, HEADER_LEN>(bytes);
    let lengths_right = usize::from(u16_at::<6, HEADER_LEN>(bytes)) == RECORD_LEN && flags & !STAGING == 0;
    if crc::crc32c(summed) != seed || !lengths_right {
        return Err(SnapshotError::Damaged);
    }
    let code = taken::<32, 32, HEADER_LEN>(bytes, u32_at::<28, HEADER_LEN>(bytes) as usize);
    let code = code.and_then(|code| str::from_utf8(code).ok()).ok_or(SnapshotError::Damaged)?;
    Ok(Header {
        records: u32_at::<8, HEADER_LEN>(bytes),
        staging: flags == STAGING,
        generation: u64_at::<16, HEADER_LEN>(bytes),
        store: Store::new(u32_at::<24, HEADER_LEN>(bytes), code).map_err(|_| SnapshotError::Damaged)?,
        seed,
    })
}

fn encode(slot: &Slot, seed: u32, bytes: &mut [u8; RECORD_LEN]) {
    const N: usize = RECORD_LEN;
    let Slot { origin, record, .. } = slot;
    let state = match slot.state() {
        Some(State::Lost) => 1,
        Some(State::Left) => 2,
        _ => 0_u8,
    };
    let known = |flag, known: bool| if known { flag } else { 0 };
    let flags = known(ZONE, record.zone.is_some())
        | known(FIRMWARE, record.firmware.is_some())
        | known(CAPS, record.caps.is_some())
        | known(SERVED, slot.past.has(Past::SERVED));
    let firmware = record.firmware.unwrap_or_default();
    *bytes = [0; N];
    put_bytes16::<0, N>(bytes, slot.id.0);
    put::<16, 4, N>(bytes, &origin.source.ip().octets());
    put_u16::<20, N>(bytes, origin.source.port());
    put_u16::<22, N>(bytes, origin.port);
    put_u16::<24, N>(bytes, record.kind.0);
    put::<26, 2, N>(bytes, &[state, flags]);
    put_u32::<28, N>(bytes, origin.epoch);
    put_u32::<32, N>(bytes, origin.sequence);
    put_u32::<36, N>(bytes, slot.seen.newest());
    put_u16::<40, N>(bytes, slot.key_id);
    put_u32::<48, N>(bytes, record.zone.unwrap_or(0));
    put_u32::<52, N>(bytes, firmware.version);
    put_u32::<56, N>(bytes, firmware.build);
    put_u64::<60, N>(bytes, record.caps.unwrap_or(0));
    let name = put::<68, 32, N>(bytes, record.name.as_str().as_bytes());
    let code = put::<100, 16, N>(bytes, record.code.as_str().as_bytes());
    let tags = put::<116, 48, N>(bytes, record.tags.as_packed());
    let services = record.services.as_services().map_or(&[][..], |services| services.as_bytes());
    let services = put::<164, 64, N>(bytes, services) / SERVICE_LEN as u8;
    put::<42, 4, N>(bytes, &[services, name, code, tags]);
    let sum = record_sum(bytes, seed);
    put_u32::<SUMMED_RECORD, N>(bytes, sum);
}

/// A device as a record tells it.
struct Entry {
    id: NodeId,
    origin: Origin,
    record: Record,
    newest: u32,
    key_id: u16,
    served: bool,
    state: State,
}

/// `None` for a record that is not as it was written.
fn decode(bytes: &[u8; RECORD_LEN], seed: u32) -> Option<Entry> {
    const N: usize = RECORD_LEN;
    if u32_at::<SUMMED_RECORD, N>(bytes) != record_sum(bytes, seed) || u16_at::<46, N>(bytes) != 0 {
        return None;
    }
    let id = NodeId(bytes16_at::<0, N>(bytes));
    let ip = Ipv4Addr::from_bits(u32_at::<16, N>(bytes).swap_bytes());
    let source = SocketAddrV4::new(ip, u16_at::<20, N>(bytes));
    let state = match u8_at::<26, N>(bytes) {
        0 => State::Unconfirmed,
        1 => State::Lost,
        2 => State::Left,
        _ => return None,
    };
    let flags = u8_at::<27, N>(bytes);
    let kind = DeviceKind(u16_at::<24, N>(bytes));
    if id.is_none()
        || kind == DeviceKind::SERVER
        || !answerable(source)
        || flags & !(ZONE | FIRMWARE | CAPS | SERVED) != 0
    {
        return None;
    }
    let firmware = Firmware { version: u32_at::<52, N>(bytes), build: u32_at::<56, N>(bytes) };
    let tags = taken::<116, 48, N>(bytes, u8_at::<45, N>(bytes).into())?;
    let record = Record {
        kind,
        name: text(taken::<68, 32, N>(bytes, u8_at::<43, N>(bytes).into())?)?,
        code: text(taken::<100, 16, N>(bytes, u8_at::<44, N>(bytes).into())?)?,
        zone: Some(u32_at::<48, N>(bytes)).filter(|_| flags & ZONE != 0),
        tags: Tags::from_packed(tags)?,
        services: services(bytes)?,
        firmware: Some(firmware).filter(|_| flags & FIRMWARE != 0),
        caps: Some(u64_at::<60, N>(bytes)).filter(|_| flags & CAPS != 0),
    };
    let origin = Origin {
        source,
        // Interfaces have other numbers in each run; the routes know the way.
        link: LinkId::ROUTED,
        port: u16_at::<22, N>(bytes),
        epoch: u32_at::<28, N>(bytes),
        sequence: u32_at::<32, N>(bytes),
    };
    let (newest, key_id) = (u32_at::<36, N>(bytes), u16_at::<40, N>(bytes));
    Some(Entry { id, origin, record, newest, key_id, served: flags & SERVED != 0, state })
}

fn services(bytes: &[u8; RECORD_LEN]) -> Option<Services> {
    let count = usize::from(u8_at::<42, RECORD_LEN>(bytes));
    let packed = taken::<164, 64, RECORD_LEN>(bytes, count.checked_mul(SERVICE_LEN)?)?;
    let mut list = Services::EMPTY;
    for service in packed.as_chunks().0 {
        let _fits = list.push(Service::from_bytes(*service));
    }
    Some(list)
}

fn text<const N: usize>(bytes: &[u8]) -> Option<Text<N>> {
    Text::new(str::from_utf8(bytes).ok()?)
}

fn record_sum(bytes: &[u8; RECORD_LEN], seed: u32) -> u32 {
    crc::append(seed, bytes.first_chunk::<SUMMED_RECORD>().unwrap_or(&[0; SUMMED_RECORD]))
}

/// Writes `value` at the beginning of the `LEN` bytes from `AT`; its length.
fn put<const AT: usize, const LEN: usize, const N: usize>(bytes: &mut [u8; N], value: &[u8]) -> u8 {
    const { assert!(AT + LEN <= N && LEN <= 255, "field lies outside the layout") };
    let room = bytes.get_mut(AT..AT + LEN).unwrap_or_default();
    for (place, byte) in room.iter_mut().zip(value) {
        *place = *byte;
    }
    u8::try_from(value.len().min(LEN)).unwrap_or(0)
}

/// The first `len` of the `LEN` bytes from `AT`, if the rest is zero.
fn taken<const AT: usize, const LEN: usize, const N: usize>(bytes: &[u8; N], len: usize) -> Option<&[u8]> {
    const { assert!(AT + LEN <= N, "field lies outside the layout") };
    let (value, rest) = bytes.get(AT..AT + LEN)?.split_at_checked(len)?;
    if rest.iter().all(|byte| *byte == 0) { Some(value) } else { None }
}
