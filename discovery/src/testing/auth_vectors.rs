//! The vectors of the specification that have true tags, which another program computed.

use wire_format::datagram::{Datagram, Nonce, covered};

use super::*;
use crate::auth::verify;

/// The bytes of the block of the specification that begins with these words.
fn block(words: &str) -> Vec<u8> {
    let document = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/PROTOCOL.md");
    let text = std::fs::read_to_string(document).expect("the specification");
    let fence = format!("```{words}\n");
    let (_, block) = text.split_once(fence.as_str()).expect("the block");
    let (digits, _) = block.split_once("```").expect("its end");
    digits.split_whitespace().map(|byte| u8::from_str_radix(byte, 16).unwrap()).collect()
}

fn key(owner: &str) -> Key {
    Key::new(block(&format!("key {owner}")).try_into().expect("32 bytes"))
}

#[test]
fn the_tags_of_the_specification_are_right_and_no_others_are() {
    let cases = [
        ("ANNOUNCE under a key", "announce", 2),
        ("CHALLENGE under a key", "announce", 2),
        ("ANNOUNCE with a cookie", "announce", 2),
        ("ACK under a key", "announce", 2),
        ("BEACON under a key", "beacon", 4),
    ];
    for (name, owner, key_id) in cases {
        let (bytes, key) = (block(&format!("vector datagram {name}")), key(owner));
        let datagram = Datagram::parse(&bytes).unwrap();
        assert_eq!(verify(&bytes, datagram.auth(), |_| Ok(&key)), Ok(key_id), "{name}");
        let (before, tag) = covered(&bytes).unwrap();
        assert_eq!(key.tag(before), *tag);
        let other = Key::new([1; 32]);
        assert_eq!(verify(&bytes, datagram.auth(), |_| Ok(&other)), Err(crate::event::Dropped::WrongTag));
        let mut written = [0; 1_200];
        let len = datagram.emit(&mut written).unwrap();
        assert_eq!(written[..len], bytes, "{name} is written as it is read");
    }
}

#[test]
fn the_dialogue_of_the_specification_hangs_together() {
    let parse = |name: &str| block(&format!("vector datagram {name}"));
    let [first, question, again, ack] =
        ["ANNOUNCE under a key", "CHALLENGE under a key", "ANNOUNCE with a cookie", "ACK under a key"]
            .map(parse);
    let (Datagram::Announce(first), Datagram::Challenge(question)) =
        (Datagram::parse(&first).unwrap(), Datagram::parse(&question).unwrap())
    else {
        panic!("other kinds")
    };
    let (Datagram::Announce(again), Datagram::Ack(ack)) =
        (Datagram::parse(&again).unwrap(), Datagram::parse(&ack).unwrap())
    else {
        panic!("other kinds")
    };
    let (Some(Nonce::Short(own)), Nonce::Short(cookie)) = (first.nonce, question.nonce) else {
        panic!("other nonces")
    };
    let both: Vec<u8> = own.into_iter().chain(cookie).collect();
    assert_eq!(again.nonce, Nonce::from_bytes(&both));
    assert_eq!((ack.nonce, ack.announce_sequence), (again.nonce, again.from.sequence));
    assert_eq!(again.from.sequence, first.from.sequence + 1);
}
