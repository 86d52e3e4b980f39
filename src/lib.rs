//! tillwire
