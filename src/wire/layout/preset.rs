//! Names for the layouts of known protocols.

/// A protocol's layout by name.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct Preset {
    /// The name, usable wherever a layout is.
    pub name: &'static str,
    /// The layout it stands for.
    pub notation: &'static str,
    /// What it is, and where it ends, in a few words.
    pub about: &'static str,
    /// The specification it was checked against.
    pub source: &'static str,
}

const fn preset(
    name: &'static str,
    notation: &'static str,
    about: &'static str,
    source: &'static str,
) -> Preset {
    Preset { name, notation, about, source }
}

/// All presets, in the order in which they are listed.
pub const PRESETS: &[Preset] = &[
    preset("dns", "u16be", "DNS over TCP", "RFC 1035, 4.2.2"),
    preset(
        "grpc",
        "h1:u32be",
        "gRPC messages; the header is the compression flag",
        "gRPC over HTTP/2",
    ),
];

/// Returns the preset of this name.
pub(super) fn find(name: &str) -> Option<&'static Preset> {
    PRESETS.iter().find(|preset| preset.name == name)
}
