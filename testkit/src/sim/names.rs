//! Counters with names: faults by kind, and the rare paths a campaign must have been on.

macro_rules! names {
    ($(#[$doc:meta])* $set:ident { $($name:ident = $text:literal $(, $rare:ident)?;)* }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
        #[expect(missing_docs, reason = "each says itself in its text")]
        pub enum $set { $($name,)* }

        impl $set {
            /// All of them, in order.
            pub const ALL: &'static [Self] = &[$(Self::$name,)*];

            /// What it is called in a summary.
            #[must_use]
            pub const fn text(self) -> &'static str {
                match self { $(Self::$name => $text,)* }
            }

            /// Whether a few hundred small runs may miss it.
            #[must_use]
            pub const fn is_rare(self) -> bool {
                match self { $(Self::$name => names!(@rare $($rare)?),)* }
            }
        }
    };
    (@rare) => { false };
    (@rare rare) => { true };
}

names! {
    /// A fault the world can place.
    FaultKind {
        Cut = "connections cut";
        CutSilently = "connections cut without a word";
        ResetAtByte = "resets after some byte";
        Dribble = "one byte at a time";
        Slow = "slow networks";
        Partition = "partitions";
        OneWay = "one-way partitions";
        StalledReader = "readers that stall";
        DialFails = "dials that fail";
        PowerCut = "devices without power";
        Killed = "devices killed";
        DiedAtStep = "devices dead at a chosen step";
        Goodbye = "devices switched off in order";
        Freeze = "devices frozen";
        AddressSwap = "addresses swapped";
        Announce = "announces";
        Removed = "devices removed";
        ServerPowerCut = "servers without power";
        ServerKilled = "servers killed";
        ServerDiedAtStep = "servers dead at a chosen step";
        ServerPause = "servers paused";
        ServerDrain = "servers that leave in order";
        TakeOver = "takeovers";
        DiskDies = "servers dead in the middle of a disk operation";
        DiskFails = "disk operations that fail";
        DiskFull = "disks full";
        DiskSlow = "disks slow";
        WallJump = "wall clocks that jump";
        JournalDies = "devices dead in the middle of a write to the journal";
        JournalFails = "journals that fail";
        JournalWiped = "journals wiped";
        JournalRots = "journals with a flipped bit";
        WallFrozen = "wall clocks that stand still";
        JournalSlow = "journals slow";
        FalseAnnounce = "announces that are not true";
        DeviceAsks = "questions of devices";
        ServerAsks = "questions of servers";
        PieceCut = "cuts in the middle of a payload";
        DiskRots = "outboxes with a flipped bit";
        Backup = "outboxes restored from a backup";
    }
}

names! {
    /// A path worth knowing that it was walked.
    Probe {
        Applied = "outcome applied";
        Duplicate = "outcome duplicate";
        Superseded = "outcome superseded";
        Expired = "outcome expired";
        Cancelled = "outcome cancelled";
        RejectedKind = "outcome rejected-kind";
        RejectedPayload = "outcome rejected-payload";
        Failed = "outcome failed";
        InDoubt = "outcome in-doubt";
        Busy = "outcome busy";
        NoSpace = "outcome no-space";
        FailedRetryable = "outcome failed-retryable";
        Overflow = "outcome overflow", rare;
        Poison = "outcome poison", rare;
        TooLarge = "outcome too-large";
        Fenced = "outcome fenced", rare;
        NotTargeted = "outcome not-targeted", rare;
        Unknown = "outcome unknown", rare;
        Redelivered = "handed over again, and said so";
        Retried = "an attempt repeated";
        Later = "a handler that answers later";
        Parked = "an order that waited for its lane";
        CutWrite = "a write cut short";
        Rebooted = "a device known in another boot";
        WrongDevice = "another device at an address";
        LeaseHeld = "a second server refused while the first is served";
        StaleFence = "a fenced server refused";
        FencedServer = "a server told that it is fenced";
        DeadPeer = "a silent device found dead";
        FrozenDevice = "a thawed device that ends its session";
        Replaced = "a session replaced";
        CancelWon = "a cancellation in time";
        CancelLost = "a cancellation too late";
        WindowFull = "a window used to its last order";
        S1 = "S1: the server died before an order was written";
        S2 = "S2: the server died while an order was written or synced";
        S3 = "S3: the server died with an order synced and nobody told";
        S6 = "S6: the server died with an outcome heard and not logged";
        D3 = "D3: the device died while it wrote that an order starts";
        D5 = "D5: the device died with a start written and nothing begun";
        D6 = "D6: the device died in the handler";
        D7 = "D7: the device died with an effect and no end written";
        D8 = "D8: the device died with an end written and not said";
        D9 = "D9: a journal that cannot write";
        D10 = "D10: a journal lost, and the server told so";
        JournalDamaged = "a journal found damaged", rare;
        FoundUntold = "an order found that nobody was told of";
        Restored = "a durable order restored";
        CommitFailed = "a commit that failed";
        OutboxFull = "an order refused because the outbox is full", rare;
        DiedAtStart = "a server that died while it started", rare;
        StartFailed = "a start that failed because of the disk", rare;
        RecordDamaged = "a record found damaged", rare;
        Draining = "a session refused while the device leaves", rare;
        ListedTwice = "a device met again before its removal was written down", rare;
        SaidWhileSyncing = "something said while the journal syncs", rare;
        Rotted = "a flipped bit that cost a record", rare;
        FoundRotten = "a record found rotten while the server runs, and lost", rare;
        Mended = "a record found rotten while the server runs, and written again from memory", rare;
        Forked = "S10: a restored outbox found out", rare;
        Renewed = "a durable log begun anew", rare;
        Answered = "a question answered";
        Unanswered = "a question without an answer";
        InPieces = "a payload put together from its pieces";
        PiecesGoOn = "pieces fetched on in the next session";
        PiecesLost = "pieces lost with a boot";
    }
}

/// How often each name of a set was counted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counts(Vec<u64>);

impl Counts {
    /// One more.
    pub fn count(&mut self, name: usize) {
        if self.0.len() <= name {
            self.0.resize(name + 1, 0);
        }
        self.0[name] += 1;
    }

    /// How often.
    #[must_use]
    pub fn of(&self, name: usize) -> u64 {
        self.0.get(name).copied().unwrap_or(0)
    }

    /// Adds another run's.
    pub fn add(&mut self, other: &Self) {
        if self.0.len() < other.0.len() {
            self.0.resize(other.0.len(), 0);
        }
        for (sum, more) in self.0.iter_mut().zip(&other.0) {
            *sum += more;
        }
    }

    /// All of them together.
    #[must_use]
    pub fn sum(&self) -> u64 {
        self.0.iter().sum()
    }
}
