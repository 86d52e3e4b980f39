//! The outbox on a disk that forgets: crashes at every step, failing calls, damage.

mod log;
mod restart;
mod shop;
