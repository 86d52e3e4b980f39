//! TCP as far as the protocol can see it: two pipes of bytes.

use push::DeviceIndex;
use push::receiver::ConnId;
use wire_format::time::Instant;

use crate::pipe::Pipe;

/// Names a connection for ever: its place, and which one in that place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct LinkId {
    place: u32,
    generation: u32,
}

/// One connection, from its dial to the moment both ends are gone.
#[derive(Debug)]
pub(super) struct Link {
    pub(super) server: usize,
    /// The start of the server that made it, its two logs then, and the fence it says in it.
    pub(super) boot: u64,
    pub(super) logs: [u64; 2],
    pub(super) fence: u64,
    /// The device that answered, and the place in the server's fleet of the one that was meant.
    pub(super) device: usize,
    pub(super) index: DeviceIndex,
    /// The device's name for it, once accepted.
    pub(super) conn: Option<ConnId>,
    /// Bytes to the device, and to the server.
    pub(super) down: Pipe,
    pub(super) up: Pipe,
    /// Which ends are open.
    pub(super) server_open: bool,
    pub(super) device_open: bool,
    /// The cable is out: nothing arrives any more, and nobody is told.
    pub(super) cut: bool,
    /// So many further bytes pass, then the connection is reset.
    pub(super) reset_after: Option<usize>,
    /// It was reset at some byte: what is written now is lost.
    pub(super) mute: bool,
    /// Bytes a read gives at most, and a piece on its way holds.
    pub(super) chunk: u64,
    /// Who reads down or up reads nothing until then.
    pub(super) stalled: [Instant; 2],
}

impl Link {
    pub(super) fn new(server: usize, device: usize, index: DeviceIndex, capacity: usize, chunk: u64) -> Self {
        Self {
            server,
            boot: 0,
            logs: [0; 2],
            fence: 0,
            device,
            index,
            conn: None,
            down: Pipe::new(capacity),
            up: Pipe::new(capacity),
            server_open: true,
            device_open: true,
            cut: false,
            reset_after: None,
            mute: false,
            chunk,
            stalled: [Instant::ZERO; 2],
        }
    }

    pub(super) fn pipe(&mut self, down: bool) -> &mut Pipe {
        if down { &mut self.down } else { &mut self.up }
    }
}

/// All connections there are.
#[derive(Debug)]
pub(super) struct Links {
    slots: Vec<(u32, Option<Link>)>,
    free: Vec<u32>,
    /// Those of each device, oldest first.
    of: Vec<Vec<LinkId>>,
}

impl Links {
    pub(super) fn new(devices: usize) -> Self {
        Self { slots: Vec::new(), free: Vec::new(), of: vec![Vec::new(); devices] }
    }

    pub(super) fn insert(&mut self, link: Link) -> LinkId {
        let place = self.free.pop().unwrap_or_else(|| {
            self.slots.push((0, None));
            self.slots.len() as u32 - 1
        });
        let (generation, slot) = &mut self.slots[place as usize];
        *generation += 1;
        let id = LinkId { place, generation: *generation };
        self.of[link.device].push(id);
        *slot = Some(link);
        id
    }

    pub(super) fn at(&mut self, id: LinkId) -> Option<&mut Link> {
        let (generation, slot) = self.slots.get_mut(id.place as usize)?;
        slot.as_mut().filter(|_| *generation == id.generation)
    }

    /// A connection without ends is forgotten.
    pub(super) fn bury(&mut self, id: LinkId) {
        if let Some(link) = self.at(id).filter(|link| !link.server_open && !link.device_open) {
            let device = link.device;
            self.of[device].retain(|other| *other != id);
            self.slots[id.place as usize].1 = None;
            self.free.push(id.place);
        }
    }

    /// Those of a device.
    pub(super) fn of_device(&self, device: usize) -> Vec<LinkId> {
        self.of[device].clone()
    }

    /// The device's end of the connection it calls so.
    pub(super) fn named(&mut self, device: usize, conn: ConnId) -> Option<LinkId> {
        let Self { slots, of, .. } = self;
        let link = |id: &&LinkId| slots[id.place as usize].1.as_ref();
        let is_it = |link: &Link| link.device_open && link.conn == Some(conn);
        of[device].iter().find(|id| link(id).is_some_and(is_it)).copied()
    }

    /// Those that a server has open.
    pub(super) fn of_server(&self, server: usize) -> Vec<LinkId> {
        let slots = (0..).zip(&self.slots);
        let is_it = |link: &Link| link.server == server && link.server_open;
        let found = slots.filter(|(_, (_, link))| link.as_ref().is_some_and(is_it));
        found.map(|(place, (generation, _))| LinkId { place, generation: *generation }).collect()
    }
}
