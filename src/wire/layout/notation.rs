//! The text form of layouts: items joined by colons, in the order of the bytes on the wire.

use std::collections::HashSet;
use std::fmt;
use std::str::FromStr;
use std::sync::{LazyLock, Mutex, PoisonError};

use data_encoding::HEXLOWER_PERMISSIVE;

use super::decoded::MAX_PAYLOAD;
use super::field::{Field, NAMES, Terminator};
use super::items::{Item, Items, LengthCounts, MOST_AROUND, Region};
use super::layout::{Kind, Layout, U32BE};
use super::preset::{self, PRESETS};
use crate::wire::escape::Escaped;
use crate::wire::similar::nearest;

/// The longest header or fixed item, in bytes.
const LONGEST_ITEM: usize = 64;

/// The most digits of a number of fixed width.
const MOST_DIGITS: u8 = 16;

/// Not a layout, and why.
///
/// If a known name is similar to an unknown one, the error suggests it.
///
/// # Examples
///
/// ```
/// use framelet::Layout;
///
/// match "u32".parse::<Layout>() {
///     Ok(layout) => panic!("{layout}"),
///     Err(error) => assert!(error.to_string().starts_with("which byte order? write u32be")),
/// }
/// let error = "postgress".parse::<Layout>().unwrap_err();
/// assert_eq!(error.to_string(), "no such layout; did you mean postgres?");
/// assert!(error.is_unknown_name());
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ParseLayoutError {
    text: String,
    unknown_name: bool,
}

impl ParseLayoutError {
    fn new(text: String) -> ParseLayoutError {
        ParseLayoutError { text, unknown_name: false }
    }

    /// Returns whether the text, or one of its items, has a name that is not known.
    pub fn is_unknown_name(&self) -> bool {
        self.unknown_name
    }
}

impl fmt::Display for ParseLayoutError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl std::error::Error for ParseLayoutError {}

/// One item of the text.
enum Token {
    Around(Item),
    Length(Field, LengthCounts),
    Payload,
}

impl FromStr for Layout {
    type Err = ParseLayoutError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let notation = preset::find(text).map_or(text, |preset| preset.notation);
        if notation == "lsp" {
            return Ok(Layout(Kind::Lsp));
        }
        let several = notation.contains(':');
        let mut tokens = Vec::new();
        for item in notation.split(':') {
            match token(item) {
                Ok(Some(token)) => tokens.push(token),
                Ok(None) => return Err(unknown(item, several)),
                Err(why) if several => {
                    return Err(ParseLayoutError::new(format!("{item:?}: {why}")));
                }
                Err(why) => return Err(ParseLayoutError::new(why)),
            }
        }
        assemble(tokens).map_err(|why| ParseLayoutError::new(format!("{text}: {why}")))
    }
}

/// What people may call a preset.
const ALIASES: [(&str, &str); 8] = [
    ("mariadb", "mysql"),
    ("mssql", "tds"),
    ("pg", "postgres"),
    ("pgsql", "postgres"),
    ("postgresql", "postgres"),
    ("psql", "postgres"),
    ("redis", "resp"),
    ("sqlserver", "tds"),
];

/// Returns the error for a name that is not known, with the one that was probably meant.
fn unknown(item: &str, several: bool) -> ParseLayoutError {
    let nearest_to = |typed: &str| {
        let binary = NAMES.into_iter().map(|(name, _)| name);
        let presets = PRESETS.iter().filter(|_| !several).map(|preset| preset.name);
        let others = [Some("ber"), several.then_some("data")].into_iter().flatten();
        let typed = typed.to_lowercase();
        let alias = ALIASES.iter().find(|(alias, _)| *alias == typed && !several);
        alias
            .map(|&(_, name)| name)
            .or_else(|| nearest(&typed, binary.chain(others).chain(presets)))
    };
    let (name, suffix) = item.split_at(item.find(['+', '-']).unwrap_or(item.len()));
    let meant = nearest_to(item).map(str::to_owned);
    let meant = meant.or_else(|| {
        // What follows the name is part of a length, or else of a word that is not known.
        let suffix = Some(suffix).filter(|suffix| suffix.is_empty() || counts(suffix).is_ok());
        let name = nearest_to(name)?;
        let of_length = NAMES.iter().any(|(known, _)| *known == name) || name == "ber";
        Some(format!("{name}{}", suffix.filter(|_| of_length).unwrap_or_default()))
    });
    let what = match several {
        true => format!("{item:?}: no such item"),
        false => "no such layout".into(),
    };
    let text = match (meant, several) {
        (Some(meant), _) => format!("{what}; did you mean {meant}?"),
        (None, true) => format!("{what}, such as u32be, h1 or data"),
        (None, false) => format!("{what}, such as u32be, h1:u32be or postgres"),
    };
    ParseLayoutError { text, unknown_name: true }
}

/// Parses an item; `None` if its name is not known.
fn token(item: &str) -> Result<Option<Token>, String> {
    if item == "data" {
        return Ok(Some(Token::Payload));
    }
    if let Some(hex) =
        item.strip_prefix('x').filter(|hex| hex.bytes().all(|c| c.is_ascii_hexdigit()))
    {
        return Ok(Some(Token::Around(Item::Fixed(hex_bytes(hex)?))));
    }
    if let Some(number) = item.strip_prefix('h').filter(|number| is_number(number)) {
        return match number.parse() {
            Ok(len @ 1..=LONGEST_ITEM) => Ok(Some(Token::Around(Item::Header(len)))),
            _ => Err(format!("a header item has 1 to {LONGEST_ITEM} bytes")),
        };
    }
    let (name, suffix) = item.split_at(item.find(['+', '-']).unwrap_or(item.len()));
    let Some(field) = field(name)? else { return Ok(None) };
    let counts = if suffix.is_empty() { LengthCounts::Payload } else { counts(suffix)? };
    match (counts, field) {
        (LengthCounts::Itself | LengthCounts::All, Field::Varint) => {
            Err("a varint cannot count itself: its own width depends on the length".into())
        }
        (LengthCounts::Itself | LengthCounts::All, field) if field.width().is_none() => {
            Err(format!("{name} cannot count itself: its own width depends on the length"))
        }
        _ => Ok(Some(Token::Length(field, counts))),
    }
}

fn is_number(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit())
}

fn hex_bytes(hex: &str) -> Result<Vec<u8>, String> {
    let bytes = HEXLOWER_PERMISSIVE.decode(hex.as_bytes());
    match bytes.ok().filter(|bytes| (1..=LONGEST_ITEM).contains(&bytes.len())) {
        Some(bytes) => Ok(bytes),
        None => Err(format!(
            "write 1 to {LONGEST_ITEM} bytes as pairs of hexadecimal digits, such as 0d0a"
        )),
    }
}

fn counts(text: &str) -> Result<LengthCounts, String> {
    let number = || {
        let number = Some(&text[1..]).filter(|text| is_number(text))?;
        number.parse().ok().filter(|&number| number > 0)
    };
    match (text, &text[..1], number()) {
        ("+self", ..) => Ok(LengthCounts::Itself),
        ("+all", ..) => Ok(LengthCounts::All),
        (_, "+", Some(more)) => Ok(LengthCounts::More(more)),
        (_, "-", Some(less)) => Ok(LengthCounts::Less(less)),
        _ => Err(format!(
            "{} is not what a length counts; write +self (the payload and the length field), +all \
             (the whole frame), or +N or -N (N more or fewer than the payload)",
            Escaped(text.as_bytes())
        )),
    }
}

/// Parses what precedes the `+` or `-` of a length; `None` if its name is not known.
fn field(name: &str) -> Result<Option<Field>, String> {
    if let Some(&(_, field)) = NAMES.iter().find(|(known, _)| *known == name) {
        return Ok(Some(field));
    }
    if name == "ber" {
        return Ok(Some(Field::Ber));
    }
    if let Some(hex) = name.strip_prefix("dec/") {
        let terminator = hex_bytes(hex)?;
        return match Terminator::new(&terminator) {
            Some(terminator) => Ok(Some(Field::Until(terminator))),
            None => Err(format!(
                "digits end with 1 to {} bytes that do not begin with a digit",
                Terminator::LONGEST
            )),
        };
    }
    for kind in ["dec", "hex", "bcd"] {
        let Some(number) = name.strip_prefix(kind).filter(|number| is_number(number)) else {
            continue;
        };
        return match (number.parse(), kind) {
            (Ok(digits), "bcd") if digits % 2 == 1 => {
                Err(format!("bcd{digits} would end within a byte; write an even number of digits"))
            }
            (Ok(digits @ 1..=MOST_DIGITS), "dec") => Ok(Some(Field::Decimal(digits))),
            (Ok(digits @ 1..=MOST_DIGITS), "hex") => Ok(Some(Field::Hex(digits))),
            (Ok(digits @ 1..=MOST_DIGITS), _) => Ok(Some(Field::Bcd(digits))),
            _ => Err(format!("{kind} has 1 to {MOST_DIGITS} digits")),
        };
    }
    if NAMES.iter().any(|(known, _)| known.strip_suffix("be") == Some(name)) {
        return Err(format!(
            "which byte order? write {name}be (most significant byte first, the usual one) or {name}le"
        ));
    }
    Ok(None)
}

/// Makes a layout of its items, or says which of them contradict each other.
fn assemble(tokens: Vec<Token>) -> Result<Layout, String> {
    let (mut regions, mut length, mut payload) = ([(); 3].map(|()| Region::default()), None, false);
    for token in tokens {
        match token {
            Token::Around(item) if payload => regions[2].push(item),
            Token::Around(item) if length.is_some() => regions[1].push(item),
            Token::Around(item) => regions[0].push(item),
            Token::Length(..) if length.is_some() => return Err("it has two lengths".into()),
            Token::Length(..) if payload => return Err("its length follows the payload".into()),
            Token::Length(field, counts) => length = Some((field, counts)),
            Token::Payload if payload => return Err("it has two payloads (data)".into()),
            Token::Payload => payload = true,
        }
    }
    let Some((field, counts)) = length else {
        return Err("it has no length, such as u32be".into());
    };
    let around: usize = regions.iter().map(|region| region.len).sum();
    if around > MOST_AROUND {
        return Err(format!(
            "it has {around} bytes beside the length and the payload, more than {MOST_AROUND}"
        ));
    }
    let is_plain = matches!(field, Field::Fixed { .. } | Field::Varint) && around == 0;
    match counts {
        LengthCounts::Payload if is_plain => return Ok(Layout::plain(field, false)),
        LengthCounts::Itself if is_plain => return Ok(Layout::plain(field, true)),
        _ => {}
    }
    let [before, between, trailer] = regions;
    let items = Items { before, field, counts, between, trailer };
    if items.min_payload() > MAX_PAYLOAD {
        let least = items.min_payload();
        return Err(format!(
            "its payloads would have at least {least} bytes, more than {MAX_PAYLOAD}"
        ));
    }
    if items.max_payload().is_none() {
        let (max, surplus) = (items.field.max(), items.surplus());
        return Err(format!(
            "its length would have to be at least {surplus}, but the field ends at {max}"
        ));
    }
    Ok(Layout(Kind::Items(interned(items))))
}

/// Returns a copy of `items` that lives as long as the program, so that layouts are cheap to copy. Equal
/// ones share it.
fn interned(items: Items) -> &'static Items {
    static KNOWN: LazyLock<Mutex<HashSet<&'static Items>>> = LazyLock::new(Mutex::default);
    let mut known = KNOWN.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(same) = known.get(&items) {
        return same;
    }
    let items: &'static Items = Box::leak(Box::new(items));
    known.insert(items);
    items
}

impl fmt::Display for Layout {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Kind::Lsp => f.write_str("lsp"),
            Kind::U32be => U32BE.fmt(f),
            Kind::Plain { field, counts_itself } => {
                write!(f, "{field}{}", if counts_itself { "+self" } else { "" })
            }
            Kind::Items(items) => items.fmt(f),
        }
    }
}

impl fmt::Debug for Layout {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Layout({self})")
    }
}
