//! The park against a list.

use wire_format::rng::Rng;

use super::*;

fn meta(number: u64, len: usize) -> Meta {
    let place = Place { log: Log(number as u8 & 1), lane: Lane::ALL[(number % 4) as usize], number };
    let (received, until) = (Instant::from_micros(number), Instant::from_micros(number + 5));
    Meta { place, received, until, len }
}

#[test]
fn it_does_what_a_list_would_do() {
    for seed in 0..300 {
        let mut rng = Rng::new(seed);
        let mut park = Park::new([0_u8; 512]);
        let mut model: Vec<(Meta, Vec<u8>)> = Vec::new();
        for number in 1..300 {
            match rng.below(3) {
                0 | 1 => {
                    let frame = vec![number as u8; rng.below(120) as usize];
                    let used: usize = model.iter().map(|(_, frame)| META_LEN + frame.len()).sum();
                    let fits = used + META_LEN + frame.len() <= 512;
                    let meta = meta(number, frame.len());
                    assert_eq!(park.push(&meta, &frame), fits, "seed {seed}");
                    if fits {
                        model.push((meta, frame));
                    }
                }
                _ if !model.is_empty() => {
                    let lane = model[rng.below(model.len() as u64) as usize].0.place.lane;
                    let at = model.iter().position(|(meta, _)| meta.place.lane == lane).unwrap();
                    let (expected, frame) = model.remove(at);
                    let (spot, found) = park.find(|meta| meta.place.lane == lane).unwrap();
                    assert_eq!(found, expected);
                    park.take(spot);
                    // Readable until something else is parked, and taken only once.
                    assert_eq!(park.frame(spot), frame);
                    park.take(spot);
                    assert_eq!(usize::from(park.count), model.len());
                }
                _ => {}
            }
        }
        park.take_where(|meta| meta.place.log == Log(1));
        model.retain(|(meta, _)| meta.place.log != Log(1));
        for (meta, frame) in model {
            let (spot, found) = park.find(|found| found.place == meta.place).unwrap();
            assert_eq!((found, park.frame(spot)), (meta, frame.as_slice()));
        }
    }
}

#[test]
fn the_park_at_its_limit_and_one_past_it() {
    let mut park = Park::new([0_u8; 2 * META_LEN + 20]);
    assert!(park.push(&meta(1, 10), &[1; 10]));
    assert!(!park.push(&meta(2, 11), &[2; 11]));
    assert!(park.push(&meta(2, 10), &[2; 10]));
    assert!(!park.push(&meta(3, 0), &[]));
    park.take_where(|meta| meta.place.number == 1);
    assert!(park.push(&meta(3, 10), &[3; 10]));
    assert_eq!(park.find(|_| true).map(|(_, meta)| meta.place.number), Some(2));
    park.clear();
    assert_eq!(park.find(|_| true), None);
    assert!(!Park::new([0_u8; 0]).push(&meta(1, 0), &[]));
}
