//! `framelet layouts`: the presets, and the bytes of a frame.

use std::io::{self, Write};

use argh::{ArgsInfo, FromArgs};
use data_encoding::HEXLOWER;
use framelet::Layout;
use framelet::wire::{EncodeError, Escaped, LengthCounts, PRESETS, Part, Preset};
use serde_json::{Value, json};

use super::exit_code::Exit;
use super::failure::Failure;
use super::help::wrapped;
use super::values;

/// The column in which descriptions start in the list.
const ABOUT: usize = 40;

/// How many bytes of a frame a line of the drawing has.
const BYTES: usize = 8;

/// How many characters of an item a line of the drawing has.
const ITEM: usize = 12;

/// The payload of the frame that is drawn.
const PAYLOAD: &[u8] = b"hello";

/// Lists the layouts that have a name, or shows a frame byte by byte.
#[derive(FromArgs, ArgsInfo)]
#[argh(
    subcommand,
    name = "layouts",
    help_triggers("-h", "--help", "help"),
    note = "LAYOUT is a name in the list, or items joined by colons in the order of the bytes on the wire: \
            a length, and around it hN (N bytes of header), xHEX (exactly these bytes) and data (the \
            payload, last unless it is written).",
    note = "Lengths: u8 to u64le, varint, ber (ASN.1), decN, hexN and bcdN (N digits), dec/HEX (digits up \
            to these bytes). A length counts the payload; with +self also its own bytes, with +all the \
            whole frame, with +N or -N that many more or fewer."
)]
pub(crate) struct Layouts {
    /// the layout whose frames to show
    #[argh(positional, arg_name = "LAYOUT")]
    layout: Option<String>,

    /// print JSON: an object per line
    #[argh(switch)]
    json: bool,
}

impl Layouts {
    pub(crate) fn run(self) -> Result<(), Failure> {
        let text = match &self.layout {
            None => PRESETS.iter().map(|preset| listed(preset, self.json)).collect(),
            Some(text) => {
                let layout = values::layout(text)
                    .map_err(|why| Failure::new(Exit::Usage, format!("layout {text:?}: {why}")))?;
                let (known, rows) = (Known::of(text, layout), rows(layout));
                match self.json {
                    true => known.json(&rows),
                    false => format!("{}\n{}", known.heading(), drawn(&rows)),
                }
            }
        };
        io::stdout().write_all(text.as_bytes()).map_err(|error| Failure::output(&error))
    }
}

/// Returns the lines of a preset in the list.
fn listed(preset: &Preset, json: bool) -> String {
    let Preset { name, notation, about, .. } = *preset;
    if json {
        let mut fields = json_of(preset);
        fields["layout"] = notation.into();
        return format!("{fields}\n");
    }
    let start = format!("{name:<18}{notation}");
    match start.chars().count() < ABOUT - 1 {
        true => wrapped("", &[(&start, about)], ABOUT),
        false => format!("{start}\n{}", wrapped("", &[("", about)], ABOUT)),
    }
}

/// Returns what a preset says of its protocol, as JSON.
fn json_of(preset: &Preset) -> Value {
    json!({"name": preset.name, "about": preset.about, "source": preset.source})
}

/// What is known of a layout.
struct Known {
    layout: Layout,
    /// The preset, if the layout was given by name.
    preset: Option<&'static Preset>,
    /// The names of other presets that have this layout.
    same: Vec<&'static str>,
}

impl Known {
    fn of(text: &str, layout: Layout) -> Known {
        let is_same = |preset: &&Preset| {
            let is_other = preset.name != text;
            is_other && preset.notation.parse().is_ok_and(|other: Layout| other == layout)
        };
        let preset = PRESETS.iter().find(|preset| preset.name == text);
        let same = PRESETS.iter().filter(is_same).map(|preset| preset.name).collect();
        Known { layout, preset, same }
    }

    /// Returns it as text.
    fn heading(&self) -> String {
        let mut heading = String::new();
        if let Some(Preset { name, about, .. }) = self.preset {
            heading += &wrapped("", &[("", &format!("{name}: {about}"))], 0);
        }
        let layout = self.layout.to_string();
        let same = self.same.join(", ");
        let mut rows = vec![("layout", layout.as_str())];
        rows.extend(self.preset.map(|preset| ("source", preset.source)));
        if !same.is_empty() {
            rows.push(("same as", &same));
        }
        heading + &wrapped("", &rows, "same as  ".len())
    }

    /// Returns it with the parts of a frame as a JSON object.
    fn json(&self, rows: &[Row]) -> String {
        let part = |row: &Row| {
            let hex = HEXLOWER.encode(&row.bytes);
            json!({"at": row.at, "length": row.len, "hex": hex, "item": row.item, "what": row.what})
        };
        let mut fields = self.preset.map_or_else(|| json!({}), json_of);
        fields["layout"] = self.layout.to_string().into();
        fields["same_as"] = self.same.clone().into();
        fields["parts"] = rows.iter().map(part).collect();
        format!("{fields}\n")
    }
}

/// A part of a frame.
struct Row {
    /// The offset of its first byte.
    at: usize,
    /// Its length.
    len: usize,
    /// Its first bytes: all of them, unless it is a long payload.
    bytes: Vec<u8>,
    /// Its item in the text form of the layout.
    item: String,
    what: String,
}

/// Returns the parts of a frame with a payload of five bytes, or as near to that as the layout allows.
fn rows(layout: Layout) -> Vec<Row> {
    let payload = match layout.encode(PAYLOAD.len()) {
        Ok(_) => PAYLOAD.len(),
        Err(EncodeError::TooShort { least, .. }) => least,
        Err(_) => layout.max_payload(),
    };
    let prefix = layout.encode(payload).unwrap_or_default();
    let parts = layout.parts();
    let width_of = |part: &Part| match part {
        Part::Header { len } => *len,
        Part::Fixed { bytes } => bytes.len(),
        _ => 0,
    };
    let around: usize = parts.iter().map(width_of).sum();
    // What is left of the prefix is the length, which may have any width.
    let width = prefix.len() + layout.trailer_len() - around;
    let frame = prefix.len() + payload + layout.trailer_len();
    let text = layout.to_string();
    let items = text.split(':').chain(["data"]);
    let mut at = 0;
    let row = |(part, item): (&Part, &str)| {
        let here = prefix.get(at..).unwrap_or_default();
        let (len, bytes, what) = match part {
            Part::Header { len } => (*len, vec![0; *len], "header (zeros unless given)".into()),
            Part::Fixed { bytes } => (bytes.len(), bytes.to_vec(), "fixed".into()),
            Part::Payload => {
                let shown: Vec<u8> =
                    PAYLOAD.iter().copied().cycle().take(payload.min(BYTES)).collect();
                (payload, shown, "payload".into())
            }
            Part::Lines => (width, here[..width].to_vec(), "header lines".into()),
            Part::Length { counts } => {
                (width, here[..width].to_vec(), counted(*counts, payload, width, frame))
            }
            _ => (0, Vec::new(), String::new()),
        };
        let row = Row { at, len, bytes, item: item.into(), what };
        at += len;
        row
    };
    parts.iter().zip(items).map(row).collect()
}

/// Returns what the number in a length field is.
fn counted(counts: LengthCounts, payload: usize, width: usize, frame: usize) -> String {
    let length = payload as u64;
    match counts {
        LengthCounts::Payload => format!("length of the payload: {payload}"),
        LengthCounts::Itself => format!("length of itself and the payload: {}", payload + width),
        LengthCounts::All => format!("length of the whole frame: {frame}"),
        LengthCounts::More(more) => {
            format!("length of the payload, plus {more}: {}", length + u64::from(more))
        }
        LengthCounts::Less(less) => {
            format!("length of the payload, minus {less}: {}", length - u64::from(less))
        }
    }
}

/// Returns a table with a line per part, or more if it is long.
fn drawn(rows: &[Row]) -> String {
    let item_of = |row: &Row| match row.item.char_indices().nth(ITEM) {
        Some((cut, _)) => format!("{}…", &row.item[..cut]),
        None => row.item.clone(),
    };
    let widest = |column: &dyn Fn(&Row) -> usize| rows.iter().map(column).max().unwrap_or(0);
    let (digits, items) =
        (widest(&|row| row.at.to_string().len()), widest(&|row| item_of(row).chars().count()));
    let hex = 3 * widest(&|row| row.bytes.len().min(BYTES)).max(2);
    let column = 2 + digits + 2 + hex + 1 + items + 2;
    let mut text = String::new();
    for row in rows {
        let hex_of = |byte: &u8| format!("{byte:02x}");
        let line_of = |line: &[u8]| line.iter().map(hex_of).collect::<Vec<_>>().join(" ");
        let lines: Vec<String> = row.bytes.chunks(BYTES).map(line_of).collect();
        let first = lines.first().map_or("", String::as_str);
        let first = format!("  {:>digits$}  {first:<hex$} {:<items$}", row.at, item_of(row));
        let is_text = |byte: &u8| byte.is_ascii_graphic() || b" \r\n".contains(byte);
        let what = match () {
            () if row.bytes.len() < row.len => format!("{}, {} bytes", row.what, row.len),
            () if !row.bytes.is_empty() && row.bytes.iter().all(is_text) => {
                format!("{}, \"{}\"", row.what, Escaped(&row.bytes))
            }
            () => row.what.clone(),
        };
        text += &wrapped("", &[(&first, &what)], column);
        for line in lines.iter().skip(1) {
            text += &format!("  {:digits$}  {line}\n", "");
        }
    }
    text
}
