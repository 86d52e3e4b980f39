//! The words people type and read: ids by their beginning, kinds, lanes, targets.

use wire_format::ids::{DeviceCode, DeviceKind, Lane, NodeId, OrderKind};

use crate::error::Failure;

/// Digits an id may be shortened to.
pub(crate) const PREFIX_DIGITS_MIN: usize = 8;

/// Whether `id` begins with `prefix`: hexadecimal digits in either case, dashes ignored.
pub(crate) fn begins_with(id: NodeId, prefix: &str) -> bool {
    id.to_string().starts_with(&plain(prefix))
}

/// `prefix` without what a GUID has besides digits, in lower case.
fn plain(prefix: &str) -> String {
    prefix.chars().filter(|c| !matches!(c, '-' | '{' | '}')).map(|c| c.to_ascii_lowercase()).collect()
}

/// An id, or at least the first eight digits of one; as a value parser.
pub(crate) fn id_prefix(text: &str) -> Result<String, String> {
    let digits = plain(text);
    if !digits.chars().all(|c| c.is_ascii_hexdigit()) || digits.len() > 32 {
        return Err("an id is 32 hexadecimal digits or a GUID; its first eight digits will do".to_owned());
    }
    if digits.len() < PREFIX_DIGITS_MIN {
        return Err(format!("at least the first {PREFIX_DIGITS_MIN} digits of the id"));
    }
    Ok(digits)
}

/// The one id among `known` that begins with `prefix`.
pub(crate) fn resolve(prefix: &str, known: &[NodeId]) -> Result<NodeId, Failure> {
    let mut matches = known.iter().copied().filter(|&id| begins_with(id, prefix));
    match (matches.next(), matches.next()) {
        (Some(id), None) => Ok(id),
        (None, _) => Err(Failure::start(
            format!("no device's id begins with {prefix}"),
            "the server has to have heard of it: see tillwire watch",
        )),
        (Some(first), Some(second)) => Err(Failure::start(
            format!("{prefix} is the beginning of several ids, {first} and {second} among them"),
            "give more digits of the one that is meant",
        )),
    }
}

/// A device's code; as a value parser.
pub(crate) fn device_code(text: &str) -> Result<DeviceCode, String> {
    DeviceCode::new(text)
        .filter(|code| !code.is_empty())
        .ok_or_else(|| "a device code is 1 to 16 bytes of text without control characters".to_owned())
}

/// An order kind by name or number (`0x8001`, `32769`); as a value parser.
pub(crate) fn order_kind(text: &str) -> Result<OrderKind, String> {
    if let Some((kind, _)) = OrderKind::NAMES.iter().find(|(_, name)| *name == text) {
        return Ok(*kind);
    }
    let number = match text.strip_prefix("0x") {
        Some(hex) => u16::from_str_radix(hex, 16),
        None => text.parse(),
    };
    match number {
        Ok(number @ 1..) => Ok(OrderKind(number)),
        _ => {
            Err("an order kind is a name or a number from 1 to 0xFFFF, the integrator's from 0x8000"
                .to_owned())
        }
    }
}

/// A device kind by name or number; as a value parser.
pub(crate) fn device_kind(text: &str) -> Result<DeviceKind, String> {
    text.parse().map_err(|error: wire_format::ids::IdError| error.to_string())
}

/// A lane by name or number; as a value parser.
pub(crate) fn lane(text: &str) -> Result<Lane, String> {
    let names = ["urgent", "interactive", "normal", "bulk"];
    let number =
        names.iter().position(|name| *name == text).map_or_else(|| text.to_owned(), |n| n.to_string());
    number
        .parse()
        .ok()
        .and_then(Lane::new)
        .ok_or_else(|| "a lane is 0 urgent, 1 interactive, 2 normal or 3 bulk".to_owned())
}

/// A node id in full; as a value parser.
pub(crate) fn node_id(text: &str) -> Result<NodeId, String> {
    text.parse().map_err(|error: wire_format::ids::IdError| error.to_string())
}

/// Whom an order is for, as written after `--to`: `all`, or `kind=`, `zone=`, `tag=` narrowing each other, or `id=`s.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct To {
    /// Devices of this kind.
    pub(crate) kind: Option<DeviceKind>,
    /// Devices in this zone.
    pub(crate) zone: Option<u32>,
    /// Devices with all of these tags.
    pub(crate) tags: Vec<String>,
    /// These devices: ids or their beginnings.
    pub(crate) ids: Vec<String>,
}

impl To {
    /// Every device.
    pub(crate) const fn is_all(&self) -> bool {
        self.kind.is_none() && self.zone.is_none() && self.tags.is_empty() && self.ids.is_empty()
    }
}

/// Reads what follows `--to`; as a value parser.
pub(crate) fn to(text: &str) -> Result<To, String> {
    let mut to = To::default();
    if text == "all" {
        return Ok(to);
    }
    for part in text.split(',') {
        match part.split_once('=') {
            Some(("kind", kind)) if to.kind.is_none() => to.kind = Some(device_kind(kind)?),
            Some(("zone", zone)) if to.zone.is_none() => {
                to.zone = Some(zone.parse().map_err(|_| format!("a zone is a number, not {zone:?}"))?);
            }
            Some(("tag", tag)) if !tag.is_empty() => to.tags.push(tag.to_owned()),
            Some(("id", id)) => to.ids.push(id_prefix(id)?),
            Some(("kind" | "zone" | "tag", _)) => return Err(format!("{part:?} stands twice or is empty")),
            _ => return Err(format!("{part:?} is none of all, kind=K, zone=Z, tag=T, id=ID")),
        }
    }
    if !to.ids.is_empty() && (to.kind.is_some() || to.zone.is_some() || !to.tags.is_empty()) {
        return Err("id= names devices; it does not go with kind=, zone= or tag=".to_owned());
    }
    Ok(to)
}

impl core::fmt::Display for To {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        let mut parts = Vec::new();
        parts.extend(self.kind.map(|kind| format!("kind={kind}")));
        parts.extend(self.zone.map(|zone| format!("zone={zone}")));
        parts.extend(self.tags.iter().map(|tag| format!("tag={tag}")));
        parts.extend(self.ids.iter().map(|id| format!("id={id}")));
        f.write_str(if self.is_all() { "all" } else { "" })?;
        f.write_str(&parts.join(","))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_by_their_beginning() {
        let known: Vec<NodeId> = ["6f9619ff-8b86-d011-b42d-00c04fc964ff", "6f9619ff8b86d011b42d00c04fc96400"]
            .iter()
            .map(|id| id.parse().unwrap())
            .collect();
        assert_eq!(resolve("6f9619ff8b86d011b42d00c04fc964ff", &known).unwrap(), known[0]);
        assert_eq!(
            resolve(&id_prefix("6F9619FF-8B86-D011-B42D-00C04FC96400").unwrap(), &known).unwrap(),
            known[1]
        );
        assert!(resolve("6f9619ff", &known).unwrap_err().cause.contains("several"));
        assert!(resolve("00000000", &known).unwrap_err().cause.contains("no device"));
        assert!(id_prefix("6f9619f").is_err(), "one digit short");
        assert!(id_prefix("6f9619fg").is_err());
    }

    #[test]
    fn a_device_code_at_its_limit_and_one_past_it() {
        assert_eq!(device_code(&"x".repeat(16)).unwrap().as_str(), "x".repeat(16));
        for wrong in ["", &"x".repeat(17), "a\tb"] {
            assert!(device_code(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn targets_read_back_as_written() {
        for text in
            ["all", "kind=till", "kind=kiosk,zone=3", "tag=bakery,tag=front", "id=6f9619ff,id=01234567"]
        {
            assert_eq!(to(text).unwrap().to_string(), text);
        }
        for wrong in
            ["", "everyone", "kind=", "zone=x", "tag=", "id=123", "id=6f9619ff,zone=3", "zone=1,zone=2"]
        {
            assert!(to(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn kinds_and_lanes_by_name_or_number() {
        assert_eq!(order_kind("message"), Ok(OrderKind::MESSAGE));
        assert_eq!(order_kind("0x8001"), Ok(OrderKind(0x8001)));
        assert!(order_kind("0").is_err());
        assert!(order_kind("0x10000").is_err());
        assert_eq!(lane("bulk"), Ok(Lane::Bulk));
        assert_eq!(lane("0"), Ok(Lane::Urgent));
        assert!(lane("4").is_err());
    }
}
