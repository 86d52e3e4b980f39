//! Whom an order is for.

use core::fmt;
use core::str::FromStr;

use wire_format::ids::{DeviceKind, NodeId};

use super::directory::Entry;

/// How deep a target may be nested that is read from text: what is typed is flat, and reading recurses.
pub const TARGET_DEPTH_MAX: usize = 16;

/// A set of devices, resolved once, when the order is pushed, against every device listed then, connected or not.
///
/// ```
/// use push::driver::server::Target;
/// use wire_format::ids::DeviceKind;
/// let kiosks_of_zone_3 = Target::kind(DeviceKind::KIOSK).and_zone(3);
/// assert_eq!(kiosks_of_zone_3.to_string(), "kind=kiosk,zone=3");
/// let screens = Target::any_of([Target::kind(DeviceKind::SIGNAGE), Target::tag("wall")]);
/// let these = screens.excluding(Target::zone(9));
/// assert_eq!(these.to_string(), "(kind=signage|tag=wall),!zone=9");
/// assert_eq!("(kind=signage|tag=wall),!zone=9".parse(), Ok(these));
/// ```
///
/// As text: words `all`, `none`, `kind=`, `zone=`, `tag=`, `id=` (several ids with `+` between), joined by `,` (and) and `|`
/// (or), with `!` before what is excluded and parentheses; `,` binds closer than `|`. A tag with one of these signs or a
/// blank in it stands in double quotes, and a quote in it twice.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target(Word);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Word {
    All,
    Kind(DeviceKind),
    Zone(u32),
    Tag(String),
    /// Sorted, each once.
    Ids(Vec<NodeId>),
    /// None or at least two; none of them `Every` or `All`.
    Every(Vec<Target>),
    /// None or at least two; none of them `Any`.
    Any(Vec<Target>),
    Not(Box<Target>),
}

impl Default for Target {
    fn default() -> Self {
        Self::all()
    }
}

impl Target {
    /// Every device.
    #[must_use]
    pub const fn all() -> Self {
        Self(Word::All)
    }

    /// No device.
    #[must_use]
    pub const fn none() -> Self {
        Self(Word::Any(Vec::new()))
    }

    /// The devices of this kind.
    #[must_use]
    pub const fn kind(kind: DeviceKind) -> Self {
        Self(Word::Kind(kind))
    }

    /// The devices of this zone; 0 for those that have none.
    #[must_use]
    pub const fn zone(zone: u32) -> Self {
        Self(Word::Zone(zone))
    }

    /// The devices that carry this tag.
    #[must_use]
    pub fn tag(tag: impl Into<String>) -> Self {
        Self(Word::Tag(tag.into()))
    }

    /// This device.
    #[must_use]
    pub fn id(id: NodeId) -> Self {
        Self::ids([id])
    }

    /// These devices.
    #[must_use]
    pub fn ids(ids: impl IntoIterator<Item = NodeId>) -> Self {
        let mut ids: Vec<_> = ids.into_iter().collect();
        ids.sort_unstable();
        ids.dedup();
        Self(Word::Ids(ids))
    }

    /// The devices that belong to at least one of these.
    #[must_use]
    pub fn any_of(targets: impl IntoIterator<Item = Self>) -> Self {
        let mut flat = Vec::new();
        for target in targets {
            match target.0 {
                Word::Any(inner) => flat.extend(inner),
                word => flat.push(Self(word)),
            }
        }
        if flat.len() == 1 { flat.remove(0) } else { Self(Word::Any(flat)) }
    }

    /// The devices that belong to each of these; all, if there are none.
    #[must_use]
    pub fn all_of(targets: impl IntoIterator<Item = Self>) -> Self {
        let mut flat = Vec::new();
        for target in targets {
            match target.0 {
                Word::Every(inner) => flat.extend(inner),
                Word::All => {}
                word => flat.push(Self(word)),
            }
        }
        match flat.len() {
            0 => Self::all(),
            1 => flat.remove(0),
            _ => Self(Word::Every(flat)),
        }
    }

    /// Every other device.
    #[must_use]
    #[expect(
        clippy::should_implement_trait,
        reason = "a word beside the others; `!target` reads worse in a chain"
    )]
    pub fn not(self) -> Self {
        match self.0 {
            Word::Not(inner) => *inner,
            word => Self(Word::Not(Box::new(Self(word)))),
        }
    }

    /// Of these, those that belong to `other` as well.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        Self::all_of([self, other])
    }

    /// These, and those of `other`.
    #[must_use]
    pub fn or(self, other: Self) -> Self {
        Self::any_of([self, other])
    }

    /// Of these, those that do not belong to `other`.
    #[must_use]
    pub fn excluding(self, other: Self) -> Self {
        self.and(other.not())
    }

    /// Of these, those of this kind.
    #[must_use]
    pub fn and_kind(self, kind: DeviceKind) -> Self {
        self.and(Self::kind(kind))
    }

    /// Of these, those of this zone.
    #[must_use]
    pub fn and_zone(self, zone: u32) -> Self {
        self.and(Self::zone(zone))
    }

    /// Of these, those that carry this tag (as well).
    #[must_use]
    pub fn and_tag(self, tag: impl Into<String>) -> Self {
        self.and(Self::tag(tag))
    }

    /// Of these, those among `ids`.
    #[must_use]
    pub fn and_ids(self, ids: impl IntoIterator<Item = NodeId>) -> Self {
        self.and(Self::ids(ids))
    }

    /// Whether a device belongs to it.
    pub(super) fn matches(&self, device: &Entry) -> bool {
        match &self.0 {
            Word::All => true,
            Word::Kind(kind) => device.kind == *kind,
            Word::Zone(zone) => device.zone == *zone,
            Word::Tag(tag) => device.tags.contains(tag),
            Word::Ids(ids) => device.id.is_some_and(|id| ids.binary_search(&id).is_ok()),
            Word::Every(targets) => targets.iter().all(|target| target.matches(device)),
            Word::Any(targets) => targets.iter().any(|target| target.matches(device)),
            Word::Not(target) => !target.matches(device),
        }
    }

    /// The ids it is limited to, if it is: a short list is looked up instead of walking every device.
    pub(super) fn named(&self) -> Option<&[NodeId]> {
        match &self.0 {
            Word::Ids(ids) => Some(ids),
            Word::Every(targets) => targets.iter().find_map(Self::named),
            _ => None,
        }
    }

    fn join(f: &mut fmt::Formatter<'_>, targets: &[Self], sign: char) -> fmt::Result {
        for (at, target) in targets.iter().enumerate() {
            if at > 0 {
                write!(f, "{sign}")?;
            }
            match &target.0 {
                Word::Any(parts) if !parts.is_empty() => write!(f, "({target})")?,
                _ => write!(f, "{target}")?,
            }
        }
        Ok(())
    }
}

/// Signs of the text form: a tag that has one is quoted.
const SIGNS: [char; 7] = [',', '|', '!', '(', ')', '"', '+'];

fn is_plain(text: &str) -> bool {
    !text.is_empty() && !text.chars().any(|sign| sign.is_whitespace() || SIGNS.contains(&sign))
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Word::All => f.write_str("all"),
            Word::Kind(kind) => write!(f, "kind={kind}"),
            Word::Zone(zone) => write!(f, "zone={zone}"),
            Word::Tag(tag) if is_plain(tag) => write!(f, "tag={tag}"),
            Word::Tag(tag) => write!(f, "tag=\"{}\"", tag.replace('"', "\"\"")),
            Word::Ids(ids) => {
                f.write_str("id=")?;
                for (at, id) in ids.iter().enumerate() {
                    write!(f, "{}{id}", if at > 0 { "+" } else { "" })?;
                }
                Ok(())
            }
            Word::Any(targets) if targets.is_empty() => f.write_str("none"),
            Word::Every(targets) => Self::join(f, targets, ','),
            Word::Any(targets) => Self::join(f, targets, '|'),
            Word::Not(target) => match &target.0 {
                Word::Every(_) => write!(f, "!({target})"),
                Word::Any(parts) if !parts.is_empty() => write!(f, "!({target})"),
                _ => write!(f, "!{target}"),
            },
        }
    }
}

/// Why a text is no target.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TargetError {
    /// A word that is none.
    #[error("`{word}` is no word of a target: all, none, kind=, zone=, tag=, id=")]
    Word {
        /// The word.
        word: String,
    },
    /// A word with a value that cannot be.
    #[error("`{value}` is no {name}")]
    Value {
        /// The word before the `=`.
        name: &'static str,
        /// What stands behind it.
        value: String,
    },
    /// A parenthesis or a quote that is not closed, or one too many.
    #[error("a parenthesis or a quote is left over at byte {at}")]
    Open {
        /// Where.
        at: usize,
    },
    /// Nested deeper than [`TARGET_DEPTH_MAX`].
    #[error("nested more than {TARGET_DEPTH_MAX} deep")]
    Depth,
}

impl FromStr for Target {
    type Err = TargetError;

    fn from_str(text: &str) -> Result<Self, TargetError> {
        let mut reader = Reader { text, at: 0 };
        let target = reader.any(0)?;
        if reader.at < text.len() { Err(TargetError::Open { at: reader.at }) } else { Ok(target) }
    }
}

/// Reads the text form from left to right.
struct Reader<'t> {
    text: &'t str,
    at: usize,
}

impl Reader<'_> {
    fn rest(&self) -> &str {
        self.text.get(self.at..).unwrap_or_default()
    }

    fn take(&mut self, sign: char) -> bool {
        let there = self.rest().starts_with(sign);
        self.at += if there { sign.len_utf8() } else { 0 };
        there
    }

    fn any(&mut self, depth: usize) -> Result<Target, TargetError> {
        let mut targets = vec![self.every(depth)?];
        while self.take('|') {
            targets.push(self.every(depth)?);
        }
        Ok(Target::any_of(targets))
    }

    fn every(&mut self, depth: usize) -> Result<Target, TargetError> {
        let mut targets = vec![self.one(depth)?];
        while self.take(',') {
            targets.push(self.one(depth)?);
        }
        Ok(Target::all_of(targets))
    }

    fn one(&mut self, depth: usize) -> Result<Target, TargetError> {
        if depth > TARGET_DEPTH_MAX {
            return Err(TargetError::Depth);
        }
        if self.take('!') {
            return Ok(self.one(depth + 1)?.not());
        }
        let open = self.at;
        if self.take('(') {
            let target = self.any(depth + 1)?;
            return if self.take(')') { Ok(target) } else { Err(TargetError::Open { at: open }) };
        }
        self.word()
    }

    fn word(&mut self) -> Result<Target, TargetError> {
        if self.rest().starts_with("tag=\"") {
            self.at += "tag=\"".len();
            return self.quoted();
        }
        let rest = self.rest();
        let len = rest.find([',', '|', '!', '(', ')', '"']).unwrap_or(rest.len());
        let word = rest.get(..len).unwrap_or_default().trim().to_owned();
        self.at += len;
        let Some((name, value)) = word.split_once('=') else {
            return match word.as_str() {
                "all" => Ok(Target::all()),
                "none" => Ok(Target::none()),
                _ => Err(TargetError::Word { word }),
            };
        };
        let wrong = |name| TargetError::Value { name, value: value.to_owned() };
        match name {
            "kind" => value.parse().map(Target::kind).map_err(|_| wrong("kind")),
            "zone" => value.parse().map(Target::zone).map_err(|_| wrong("zone")),
            "tag" if is_plain(value) => Ok(Target::tag(value)),
            "tag" => Err(wrong("tag")),
            "id" if value.is_empty() => Ok(Target::ids([])),
            "id" => {
                let ids: Result<Vec<NodeId>, _> = value.split('+').map(str::parse).collect();
                ids.map(Target::ids).map_err(|_| wrong("id"))
            }
            _ => Err(TargetError::Word { word }),
        }
    }

    /// What stands in quotes, whose first one was read.
    fn quoted(&mut self) -> Result<Target, TargetError> {
        let open = self.at - 1;
        let mut tag = String::new();
        loop {
            let rest = self.rest();
            let Some(end) = rest.find('"') else { return Err(TargetError::Open { at: open }) };
            tag.push_str(rest.get(..end).unwrap_or_default());
            self.at += end + 1;
            if !self.take('"') {
                return Ok(Target::tag(tag));
            }
            tag.push('"');
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use wire_format::ids::Tags;

    const TAGS: [&str; 4] = ["bakery", "a b", "x\"y", "p|q"];

    /// What a target says, in words of its own.
    #[derive(Clone, Debug)]
    enum Naive {
        All,
        Kind(u16),
        Zone(u32),
        Tag(usize),
        Ids(Vec<u8>),
        Every(Vec<Self>),
        Any(Vec<Self>),
        Not(Box<Self>),
    }

    impl Naive {
        fn target(&self) -> Target {
            match self {
                Self::All => Target::all(),
                Self::Kind(kind) => Target::kind(DeviceKind(*kind)),
                Self::Zone(zone) => Target::zone(*zone),
                Self::Tag(tag) => Target::tag(TAGS[*tag]),
                Self::Ids(ids) => Target::ids(ids.iter().map(|&n| NodeId([n + 1; 16]))),
                Self::Every(all) => Target::all_of(all.iter().map(Self::target)),
                Self::Any(any) => Target::any_of(any.iter().map(Self::target)),
                Self::Not(not) => not.target().not(),
            }
        }

        /// Device n has kind n % 3, zone n % 4, and each tag whose bit is set in n; every fifth has no id.
        fn holds(&self, n: u8) -> bool {
            match self {
                Self::All => true,
                Self::Kind(kind) => u16::from(n % 3) == *kind,
                Self::Zone(zone) => u32::from(n % 4) == *zone,
                Self::Tag(tag) => n >> tag & 1 == 1,
                Self::Ids(ids) => !n.is_multiple_of(5) && ids.contains(&n),
                Self::Every(all) => all.iter().all(|one| one.holds(n)),
                Self::Any(any) => any.iter().any(|one| one.holds(n)),
                Self::Not(not) => !not.holds(n),
            }
        }
    }

    fn naive() -> impl Strategy<Value = Naive> {
        let leaf = prop_oneof![
            Just(Naive::All),
            (0..3_u16).prop_map(Naive::Kind),
            (0..4_u32).prop_map(Naive::Zone),
            (0..4_usize).prop_map(Naive::Tag),
            prop::collection::vec(0..60_u8, 0..8).prop_map(Naive::Ids),
        ];
        leaf.prop_recursive(4, 24, 4, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..4).prop_map(Naive::Every),
                prop::collection::vec(inner.clone(), 0..4).prop_map(Naive::Any),
                inner.prop_map(|one| Naive::Not(Box::new(one))),
            ]
        })
    }

    fn device(n: u8) -> Entry {
        let tags = (0..4).filter(|bit| n >> bit & 1 == 1).map(|bit| TAGS[bit]);
        Entry {
            id: (!n.is_multiple_of(5)).then_some(NodeId([n + 1; 16])),
            address: None,
            kind: DeviceKind((n % 3).into()),
            zone: (n % 4).into(),
            tags: Tags::new(tags).unwrap(),
            connected: false,
        }
    }

    proptest! {
        #[test]
        fn a_target_is_what_its_words_say_and_reads_as_it_is_written(naive in naive()) {
            let target = naive.target();
            for n in 0..60 {
                prop_assert_eq!(target.matches(&device(n)), naive.holds(n), "device {} of {}", n, target);
            }
            if let Some(ids) = target.named() {
                let outside = (0..60).map(device).filter(|device| device.id.is_none_or(|id| !ids.contains(&id)));
                prop_assert!(outside.into_iter().all(|device| !target.matches(&device)));
            }
            let text = target.to_string();
            prop_assert_eq!(text.parse(), Ok(target), "{}", text);
        }

        #[test]
        fn no_text_makes_it_panic(text in "[a-z=,|!()\"+0-9 ]{0,40}") {
            let _ = text.parse::<Target>();
        }
    }

    #[test]
    fn texts_that_are_none_say_why() {
        let error = |text: &str| text.parse::<Target>().unwrap_err().to_string();
        assert_eq!(
            error("colour=red"),
            "`colour=red` is no word of a target: all, none, kind=, zone=, tag=, id="
        );
        assert_eq!(error("zone=x"), "`x` is no zone");
        assert_eq!(error("(zone=1"), "a parenthesis or a quote is left over at byte 0");
        assert_eq!(error("zone=1)"), "a parenthesis or a quote is left over at byte 6");
        assert_eq!(error("tag=\"x"), "a parenthesis or a quote is left over at byte 4");
        assert_eq!(error(""), "`` is no word of a target: all, none, kind=, zone=, tag=, id=");
    }

    #[test]
    fn nesting_at_the_limit_and_one_past_it() {
        let nested = |depth| format!("{}all{}", "(".repeat(depth), ")".repeat(depth));
        assert_eq!(nested(TARGET_DEPTH_MAX).parse(), Ok(Target::all()));
        assert_eq!(nested(TARGET_DEPTH_MAX + 1).parse::<Target>(), Err(TargetError::Depth));
    }
}
