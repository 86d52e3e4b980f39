//! What the network does: every datagram has a delay, may be lost, doubled or overtaken, and waits in a socket that holds
//! so many.
//!
//! A broadcast reaches every node that is on, with one delay for all and a fate of its own for each. A node behind a router
//! is reached by unicast only.

use super::*;

/// Between two looks of a driver at its socket's drop counter.
const DROPS_EVERY: Duration = Duration::from_millis(100);

pub(super) enum Action {
    Deliver(usize, Arrival, Rc<[u8]>),
    Broadcast(usize, Rc<[u8]>),
    Read(usize),
    Drops(usize),
    Timer(usize),
    Boot(usize),
}

pub(super) struct Due {
    pub(super) at: Instant,
    pub(super) order: u64,
    pub(super) action: Action,
}

impl PartialEq for Due {
    fn eq(&self, other: &Self) -> bool {
        (self.at, self.order) == (other.at, other.order)
    }
}

impl Eq for Due {}

impl PartialOrd for Due {
    fn partial_cmp(&self, other: &Self) -> Option<core::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Due {
    fn cmp(&self, other: &Self) -> core::cmp::Ordering {
        (other.at, other.order).cmp(&(self.at, self.order))
    }
}

impl World {
    pub(super) fn send(&mut self, node: usize, to: Destination, bytes: Rc<[u8]>) {
        let delay = self.rng.between(Duration::from_micros(100), ms(1));
        match to {
            Destination::Broadcast(_) => self.push(delay, Action::Broadcast(node, bytes)),
            Destination::Unicast(_, to) => {
                let Some(&receiver) = self.at.get(&to) else { return };
                let arrival = Arrival { link: LINK, source: self.nodes[node].address, broadcast: false };
                for _ in 0..self.copies(receiver) {
                    let late = self.lateness();
                    self.push(delay + late, Action::Deliver(receiver, arrival, bytes.clone()));
                }
            }
        }
    }

    /// How many copies of a datagram arrive.
    fn copies(&mut self, receiver: usize) -> usize {
        let more = match &self.nodes[receiver].core {
            Core::Server(_) => self.loss_up,
            Core::Device(_) => self.loss_down,
        };
        let copy = if self.rng.below(1_000) < self.loss + more {
            0
        } else if self.rng.below(1_000) < self.duplicates {
            2
        } else {
            1
        };
        copy * self.loops
    }

    /// By how much a copy is overtaken.
    fn lateness(&mut self) -> Duration {
        if self.overtaken == 0 || self.rng.below(1_000) >= self.overtaken {
            return Duration::ZERO;
        }
        let late = self.late;
        self.rng.between(ms(1), late)
    }

    pub(crate) fn run(&mut self, span: Duration) {
        let end = self.now + span;
        while self.queue.peek().is_some_and(|due| due.at <= end) {
            let due = self.queue.pop().unwrap();
            self.now = self.now.max(due.at);
            self.act(due.action);
        }
        self.now = end;
    }

    fn act(&mut self, action: Action) {
        match action {
            Action::Boot(node) => {
                self.nodes[node].on = true;
                self.up(node);
            }
            Action::Deliver(node, arrival, bytes) => self.deliver(node, arrival, &bytes),
            Action::Broadcast(sender, bytes) => self.broadcast(sender, &bytes),
            Action::Read(node) => self.read(node),
            Action::Drops(node) => {
                let drops = self.nodes[node].drops;
                self.with_roster(node, |roster, now| roster.handle_receive_drops(now, drops));
                self.push(DROPS_EVERY, Action::Drops(node));
            }
            Action::Timer(node) => {
                let owner = &mut self.nodes[node];
                if owner.on && !owner.frozen && owner.armed <= Some(self.now) {
                    owner.armed = None;
                    self.timeout(node);
                }
            }
        }
    }

    fn broadcast(&mut self, sender: usize, bytes: &Rc<[u8]>) {
        if self.nodes[sender].routed {
            return;
        }
        let arrival = Arrival { link: LINK, source: self.nodes[sender].address, broadcast: true };
        for node in 0..self.nodes.len() {
            if node == sender || !self.nodes[node].on || self.nodes[node].routed {
                continue;
            }
            if self.broadcast_loss != 0 && self.rng.below(1_000) < self.broadcast_loss {
                continue;
            }
            for _ in 0..self.copies(node) {
                match self.lateness() {
                    Duration::ZERO => self.deliver(node, arrival, bytes),
                    late => self.push(late, Action::Deliver(node, arrival, bytes.clone())),
                }
            }
        }
    }

    fn deliver(&mut self, node: usize, arrival: Arrival, bytes: &Rc<[u8]>) {
        let receiver = &mut self.nodes[node];
        if !receiver.on {
            return;
        }
        if !receiver.frozen && receiver.each.is_none() {
            return self.input(node, &arrival, bytes);
        }
        if receiver.held.len() < receiver.held_max {
            receiver.held.push_back((arrival, bytes.clone()));
        } else {
            receiver.drops += 1;
        }
        self.look(node);
    }

    /// The process of a node that takes its time will look into the socket.
    pub(super) fn look(&mut self, node: usize) {
        let owner = &mut self.nodes[node];
        if let (Some(each), false, false) = (owner.each, owner.frozen || owner.reading, owner.held.is_empty())
        {
            owner.reading = true;
            self.push(each, Action::Read(node));
        }
    }

    fn read(&mut self, node: usize) {
        let owner = &mut self.nodes[node];
        owner.reading = false;
        if owner.frozen || !owner.on {
            return;
        }
        if let Some((arrival, bytes)) = owner.held.pop_front() {
            self.input(node, &arrival, &bytes);
        }
        self.look(node);
    }

    /// The socket of this server holds `room` datagrams, its process takes `each` for one, and its driver tells what was
    /// dropped.
    pub(crate) fn socket(&mut self, server: usize, room: usize, each: Duration) {
        let owner = &mut self.nodes[server];
        (owner.held_max, owner.each) = (room, Some(each));
        self.push(DROPS_EVERY, Action::Drops(server));
    }
}
