//! Which devices are looked at.

use super::model::{Device, STATES};
use crate::names;

/// A target, as [`names::To`] has it, with its kind as devices show it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Wanted {
    kind: Option<String>,
    zone: Option<u32>,
    tags: Vec<String>,
    ids: Vec<String>,
}

impl Wanted {
    fn matches(&self, device: &Device) -> bool {
        self.kind.as_ref().is_none_or(|kind| *kind == device.kind)
            && self.zone.is_none_or(|zone| u64::from(zone) == device.zone)
            && self.tags.iter().all(|tag| device.tags.contains(tag))
            && (self.ids.is_empty() || self.ids.iter().any(|id| device.id.starts_with(id.as_str())))
    }
}

/// What narrows a watch: every option given must be met, and none of the `--not-` ones.
#[derive(clap::Args, Clone, Debug, Default)]
#[command(next_help_heading = "Which devices")]
pub(crate) struct Filter {
    /// A target as `push --to` takes it: kind=K, zone=Z, tag=T, id=ID, with commas or spaces between.
    #[arg(long = "where", value_name = "TARGET", value_parser = target)]
    target: Option<Wanted>,
    /// Of this kind; of one of these, if given several times.
    #[arg(long = "kind", value_name = "K", value_parser = kind)]
    kinds: Vec<String>,
    /// In this zone, or one of these.
    #[arg(long = "zone", value_name = "Z")]
    zones: Vec<u32>,
    /// With this tag; with all of these.
    #[arg(long = "tag", value_name = "T")]
    tags: Vec<String>,
    /// In this state, or one of these: fresh, suspect, linked, lost, left, unconfirmed, listed.
    #[arg(long = "state", value_name = "S", value_parser = state, value_delimiter = ',')]
    states: Vec<&'static str>,
    /// With this in its name, code, id or address; letter case does not count.
    #[arg(long = "text", value_name = "TEXT", value_parser = small)]
    texts: Vec<String>,
    /// Not of this kind.
    #[arg(long, value_name = "K", value_parser = kind)]
    not_kind: Vec<String>,
    /// Not in this zone.
    #[arg(long, value_name = "Z")]
    not_zone: Vec<u32>,
    /// Without this tag.
    #[arg(long, value_name = "T")]
    not_tag: Vec<String>,
    /// Not in this state.
    #[arg(long, value_name = "S", value_parser = state, value_delimiter = ',')]
    not_state: Vec<&'static str>,
    /// Without this in its name, code, id or address.
    #[arg(long, value_name = "TEXT", value_parser = small)]
    not_text: Vec<String>,
}

impl Filter {
    /// Whether every device passes.
    pub(super) fn is_empty(&self) -> bool {
        self.target.as_ref().is_none_or(|target| *target == Wanted::default())
            && self.kinds.is_empty()
            && self.zones.is_empty()
            && self.tags.is_empty()
            && self.states.is_empty()
            && self.texts.is_empty()
            && self.not_kind.is_empty()
            && self.not_zone.is_empty()
            && self.not_tag.is_empty()
            && self.not_state.is_empty()
            && self.not_text.is_empty()
    }

    /// Whether this device passes.
    pub(super) fn matches(&self, device: &Device) -> bool {
        let kind = |wanted: &String| device.kind == *wanted;
        let zone = |wanted: &u32| u64::from(*wanted) == device.zone;
        let tag = |wanted: &String| device.tags.contains(wanted);
        let state = |wanted: &&str| device.state == *wanted;
        let text = |wanted: &String| device.words.contains(wanted.as_str());
        (self.kinds.is_empty() || self.kinds.iter().any(kind))
            && (self.zones.is_empty() || self.zones.iter().any(zone))
            && (self.states.is_empty() || self.states.iter().any(state))
            && self.tags.iter().all(tag)
            && self.texts.iter().all(text)
            && !self.not_kind.iter().any(kind)
            && !self.not_zone.iter().any(zone)
            && !self.not_state.iter().any(state)
            && !self.not_tag.iter().any(tag)
            && !self.not_text.iter().any(text)
            && self.target.as_ref().is_none_or(|target| target.matches(device))
    }
}

/// What follows `--where`.
fn target(text: &str) -> Result<Wanted, String> {
    let words: Vec<&str> = text.split([' ', ',']).filter(|word| !word.is_empty()).collect();
    let names::To { kind, zone, tags, ids } = names::to(&words.join(","))?;
    Ok(Wanted { kind: kind.map(|kind| kind.to_string()), zone, tags, ids })
}

/// A kind's name, whichever way it was written.
fn kind(text: &str) -> Result<String, String> {
    names::device_kind(text).map(|kind| kind.to_string())
}

fn state(text: &str) -> Result<&'static str, String> {
    let found = STATES.into_iter().find(|state| *state == text);
    found.ok_or_else(|| format!("a state is one of {}", STATES.join(", ")))
}

fn small(text: &str) -> Result<String, String> {
    Ok(text.to_lowercase())
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use clap::{Args, FromArgMatches};
    use serde_json::json;

    use super::*;

    fn filter(words: &str) -> Result<Filter, clap::Error> {
        let command = Filter::augment_args(clap::Command::new("watch").no_binary_name(true));
        let words: Vec<&str> = if words.is_empty() { Vec::new() } else { words.split('|').collect() };
        Filter::from_arg_matches(&command.try_get_matches_from(words)?)
    }

    fn device() -> Device {
        let told = json!({"id": "6f9619ff8b86d011b42d00c04fc964ff", "name": "Kasse Süd", "code": "K-7", "kind": "till",
                          "zone": 3, "tags": ["front", "cash"], "address": "10.0.0.9:8081", "state": "suspect"});
        Device::of(&told, Duration::ZERO)
    }

    #[test]
    fn every_option_narrows_and_its_opposite_takes_the_rest() {
        let yes = [
            "",
            "--where|all",
            "--where|kind=till zone=3",
            "--where|tag=cash,tag=front",
            "--where|id=6F9619FF",
            "--kind|till",
            "--kind|kiosk|--kind|till",
            "--zone|3",
            "--tag|cash|--tag|front",
            "--state|suspect",
            "--state|fresh,suspect",
            "--text|süd",
            "--text|k-7",
            "--text|d011",
            "--text|10.0.0.9",
            "--not-kind|kiosk",
            "--not-zone|4",
            "--not-tag|x",
            "--not-state|lost",
            "--not-text|nord",
            "--kind|till|--not-zone|4",
            "--kind|0",
        ];
        for words in yes {
            assert!(filter(words).unwrap().matches(&device()), "{words}");
        }
        let no = [
            "--where|kind=till zone=4",
            "--where|tag=cash,tag=x",
            "--where|id=00000000",
            "--kind|kiosk",
            "--zone|0",
            "--tag|cash|--tag|x",
            "--state|fresh",
            "--text|nord",
            "--text|süd|--text|nord",
            "--not-kind|till",
            "--not-zone|3",
            "--not-tag|cash",
            "--not-state|suspect",
            "--not-text|SÜD",
            "--kind|till|--not-zone|3",
        ];
        for words in no {
            assert!(!filter(words).unwrap().matches(&device()), "{words}");
        }
    }

    #[test]
    fn what_is_no_filter_is_refused() {
        for words in
            ["--where|colour=red", "--where|", "--kind|spoon", "--zone|x", "--state|gone", "--not-state|x"]
        {
            assert!(filter(words).is_err(), "{words}");
        }
        assert!(filter("").unwrap().is_empty() && filter("--where|all").unwrap().is_empty());
        assert!(!filter("--not-text|x").unwrap().is_empty());
    }
}
