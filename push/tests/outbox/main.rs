//! The outbox on a disk that forgets: crashes at every step, failing calls, damage.

mod crashes;
mod damage;
mod document;
mod log;
mod model;
mod restart;
mod shop;
