//! The outbox against an embedded store that is kept well: redb, durable and in two phases. Both write the same records to the
//! same disk, in the same run and by turns. `cargo bench --bench outbox -- [DIRECTORY]`; Linux tells the CPU time.
//!
//! What is written is an order of 200 bytes for one device: as the outbox writes it, and as a value under its number.

#![expect(clippy::disallowed_methods, reason = "a bench reads the clock")]

use std::hint::black_box;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use push::order::Order;
use push::outbox::log::{Directory, Life, Log, Settings};
use push::outbox::{Entry, Frame, Now, Outbox, Targets};
use redb::{Database, Durability, ReadableDatabase, ReadableTable, TableDefinition};
use wire_format::frame::header::{Flags, Header};
use wire_format::ids::{Lineage, OrderKind};

const TABLE: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("orders");
const BATCHES: [u64; 4] = [1, 8, 64, 512];
const ROUNDS: usize = 5;
/// How long a contestant writes before it is the other's turn.
const TURN: Duration = Duration::from_millis(400);
const RECOVERED: u64 = 1_000_000;

fn main() {
    // `cargo test --benches` and `--no-run` builds shall not write a gigabyte.
    let arguments: Vec<String> = std::env::args().skip(1).filter(|argument| argument != "--bench").collect();
    if arguments.iter().any(|argument| argument == "--test") {
        return;
    }
    let within = arguments.first().map_or_else(std::env::temp_dir, PathBuf::from);
    let directory = within.join(format!("outbox-bench-{}", std::process::id()));
    std::fs::create_dir_all(&directory).unwrap();
    println!("{} bytes a frame, in {}", frame(1).len(), directory.display());
    for batch in BATCHES {
        write(&directory, batch);
    }
    recover(&directory);
    std::fs::remove_dir_all(directory).unwrap();
}

fn frame(number: u64) -> Vec<u8> {
    let order = Order::new(OrderKind::PRINT, 1, &[0x5A; 136]);
    let mut bytes = vec![0; order.encoded_len()];
    order.emit(number, &mut bytes).unwrap();
    let head = bytes.first_chunk_mut().unwrap();
    let header = Header::parse(head).unwrap();
    *head = Header { flags: header.flags.with_if(Flags::DURABLE, true), ..header }.emit();
    bytes
}

/// CPU time of this thread, in nanoseconds; 0 where the system does not tell.
fn cpu() -> u64 {
    let told = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
    told.split(' ').next().and_then(|first| first.parse().ok()).unwrap_or(0)
}

/// Something that takes orders and has them on disk when it says so.
trait Store {
    fn commit(&mut self, numbers: std::ops::Range<u64>);
}

struct Ours(Outbox<Directory>);

impl Store for Ours {
    fn commit(&mut self, numbers: std::ops::Range<u64>) {
        let (now, targets) = (Now::default(), Targets::one(7).unwrap());
        for number in numbers {
            let bytes = frame(number);
            let frame = Frame::new(&bytes).unwrap();
            self.0.append(now, &Entry::Order { frame, targets: &targets }).unwrap();
        }
        self.0.commit(now).unwrap();
    }
}

struct Bare(Log<Directory>);

impl Store for Bare {
    fn commit(&mut self, numbers: std::ops::Range<u64>) {
        for number in numbers {
            self.0.append(1, Life::Live, &[&frame(number)]).unwrap();
        }
        self.0.commit().unwrap();
    }
}

struct Theirs(Database);

impl Store for Theirs {
    fn commit(&mut self, numbers: std::ops::Range<u64>) {
        let mut transaction = self.0.begin_write().unwrap();
        transaction.set_durability(Durability::Immediate).unwrap();
        transaction.set_two_phase_commit(true);
        {
            let mut table = transaction.open_table(TABLE).unwrap();
            for number in numbers {
                table.insert(number, frame(number).as_slice()).unwrap();
            }
        }
        transaction.commit().unwrap();
    }
}

fn ours(directory: &Path) -> Outbox<Directory> {
    let disk = Directory::open(&directory.join("outbox")).unwrap();
    Outbox::open(disk, Settings::default(), Now::default(), 7).unwrap().0
}

fn bare(directory: &Path) -> Log<Directory> {
    let disk = Directory::open(&directory.join("log")).unwrap();
    let mut records = 0_u64;
    let opened = Log::open(disk, Settings::default(), Lineage([7; 16]), 7, |_, _, body| {
        records += black_box(body.to_vec()).len() as u64;
        Life::Live
    });
    black_box(records);
    opened.unwrap().0
}

fn theirs(directory: &Path) -> Database {
    Database::create(directory.join("redb")).unwrap()
}

/// Orders per second, and microseconds of CPU per order.
fn turn(store: &mut dyn Store, number: &mut u64, batch: u64) -> (f64, f64) {
    let (start, cpu_start, first) = (Instant::now(), cpu(), *number);
    while start.elapsed() < TURN {
        store.commit(*number..*number + batch);
        *number += batch;
    }
    let orders = (*number - first) as f64;
    (orders / start.elapsed().as_secs_f64(), (cpu() - cpu_start) as f64 / 1_000.0 / orders)
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

fn write(directory: &Path, batch: u64) {
    let mut stores: [(&str, Box<dyn Store>); 3] = [
        ("outbox", Box::new(Ours(ours(directory)))),
        ("its log", Box::new(Bare(bare(directory)))),
        ("redb", Box::new(Theirs(theirs(directory)))),
    ];
    let (mut rates, mut costs) = (vec![vec![]; stores.len()], vec![vec![]; stores.len()]);
    let mut numbers = [1_u64; 3];
    for _ in 0..ROUNDS {
        for (at, (_, store)) in stores.iter_mut().enumerate() {
            let (rate, cost) = turn(store.as_mut(), &mut numbers[at], batch);
            rates[at].push(rate);
            costs[at].push(cost);
        }
    }
    for (at, (name, _)) in stores.iter().enumerate() {
        let (rate, cost) = (median(rates[at].clone()), median(costs[at].clone()));
        println!("batch {batch:>3}  {name:<8} {rate:>9.0} orders/s  {cost:>7.2} us of CPU an order");
    }
    drop(stores);
    for left in ["outbox", "log"] {
        std::fs::remove_dir_all(directory.join(left)).unwrap();
    }
    std::fs::remove_file(directory.join("redb")).unwrap();
}

fn recover(directory: &Path) {
    let mut stores: [Box<dyn Store>; 3] = [
        Box::new(Ours(ours(directory))),
        Box::new(Bare(bare(directory))),
        Box::new(Theirs(theirs(directory))),
    ];
    for store in &mut stores {
        (0..RECOVERED / 1_000).for_each(|at| store.commit(1 + at * 1_000..1 + (at + 1) * 1_000));
    }
    drop(stores);
    let mut times = vec![vec![]; 3];
    let mut costs = vec![vec![]; 3];
    for _ in 0..ROUNDS {
        let (start, cpu_start) = (Instant::now(), cpu());
        let disk = Directory::open(&directory.join("outbox")).unwrap();
        let (outbox, restored) = Outbox::open(disk, Settings::default(), Now::default(), 7).unwrap();
        times[0].push(start.elapsed().as_secs_f64());
        costs[0].push((cpu() - cpu_start) as f64 / 1e9);
        assert_eq!(restored.orders.len() as u64, RECOVERED);
        drop((outbox, restored));
        let (start, cpu_start) = (Instant::now(), cpu());
        drop(bare(directory));
        times[1].push(start.elapsed().as_secs_f64());
        costs[1].push((cpu() - cpu_start) as f64 / 1e9);
        let (start, cpu_start) = (Instant::now(), cpu());
        let database = theirs(directory);
        let read = database.begin_read().unwrap();
        let table = read.open_table(TABLE).unwrap();
        let all: Vec<_> = table.iter().unwrap().map(|row| row.unwrap().1.value().to_vec()).collect();
        times[2].push(start.elapsed().as_secs_f64());
        costs[2].push((cpu() - cpu_start) as f64 / 1e9);
        assert_eq!(all.len() as u64, RECOVERED);
    }
    for (name, (times, costs)) in ["outbox", "its log", "redb"].into_iter().zip(times.into_iter().zip(costs))
    {
        let (time, cost) = (median(times), median(costs));
        println!("{RECOVERED} live records found again by {name:<8} {time:>5.2} s, {cost:.2} s of CPU");
    }
}
