//! How the results of one client are encoded: as a header of the call says, else an option of its session, else the line it is
//! behind, else the server's settings, else by what is known of its family. What is set for all of a line's or a server's clients
//! holds for those families that are known to read it, and is never a loss of digits.
//!
//! A family is recognised by the header `user-agent`, never by a version in it: drivers are built without
//! one. Everybody gets plain types (`delivery::wire_schema`), which every driver there is can read. Dictionaries and
//! shorter numbers are for those who ask. A codec is the default only where every build of the family decodes it, and where
//! the bytes it saves cost more than it does: not on this machine.

use std::net::SocketAddr;

use http::HeaderMap;
use tonic::Status;

use crate::config::{CodecDefault, ResultSettings};
use crate::delivery::LineDefaults;
use crate::error::ErrorKind;
use crate::flight::frame::GZIP;
use crate::flight::status::refuse;
use crate::model::{Codec, Precision, WireProfile};

/// Header that names a codec.
pub(crate) const CODEC: &str = "lakegate-codec";
/// Header that asks for dictionaries.
pub(crate) const DICTIONARIES: &str = "lakegate-dictionaries";

/// Header that asks for shorter floating-point numbers.
pub(crate) const PRECISION: &str = "lakegate-precision";
/// Header in which clients say how messages of gRPC may be compressed.
const UNPACKED: &str = "grpc-accept-encoding";
/// Headers of proxies: the client is not where its connection comes from.
const FORWARDED: [&str; 3] = ["forwarded", "x-forwarded-for", "via"];

/// The words for codecs; `auto` is what the client's family decodes.
const CODECS: &[(&str, Option<Codec>)] =
    &[("auto", None), ("zstd", Some(Codec::Zstd)), ("lz4", Some(Codec::Lz4)), ("none", Some(Codec::None))];
/// The words about dictionaries.
const ON_OR_OFF: &[(&str, bool)] = &[("on", true), ("off", false)];

/// The words for how exact numbers are.
const PRECISIONS: &[(&str, Precision)] = &[
    ("full", Precision::Full),
    ("float32", Precision::Float32),
    ("float16", Precision::Float16),
    ("rounded", Precision::Rounded),
];

/// What is known of the clients whose `user-agent` begins with some text.
#[derive(Debug, PartialEq, Eq)]
struct Family {
    /// How the header begins.
    prefix: &'static str,
    /// What all of them decode.
    codec: Codec,
    /// Why dictionaries are refused even where they are asked for; none where they can be read.
    no_dictionaries: Option<&'static str>,
    /// Whether they read half floats.
    halves: bool,
    /// Whether they read what gRPC compressed with gzip, where they say so.
    gzip: bool,
}

/// The families there are; the first whose prefix fits counts.
const FAMILIES: &[Family] = &[
    // pyarrow, and all else on Arrow C++. ODBC drivers are built on it too.
    Family { prefix: "grpc-c++/", codec: Codec::Zstd, no_dictionaries: None, halves: true, gzip: true },
    // The ADBC driver, in whatever language it is loaded.
    Family { prefix: "ADBC Flight SQL Driver", codec: Codec::Zstd, no_dictionaries: None, halves: true, gzip: true },
    // arrow-go, which has decoded both codecs since before Flight SQL; Grafana's plugin is built on it.
    Family { prefix: "grpc-go/", codec: Codec::Zstd, no_dictionaries: None, halves: true, gzip: true },
    // `lakegate query`.
    Family { prefix: "lakegate/", codec: Codec::Zstd, no_dictionaries: None, halves: true, gzip: true },
    // The JDBC driver: it has no decompressor, and takes a dictionary's indices for its values. Its gRPC offers gzip, but Arrow's
    // reader looks for more of a message after its end there, and fails (measured with 18.3.0).
    Family {
        prefix: "grpc-java",
        codec: Codec::None,
        no_dictionaries: Some("Java's drivers take the positions in a dictionary for its values"),
        halves: false,
        gzip: false,
    },
    // Rust clients decode what their builders switched on, which by default is nothing.
    Family { prefix: "tonic/", codec: Codec::None, no_dictionaries: None, halves: true, gzip: true },
];

/// Anybody else.
const UNKNOWN: Family = Family { prefix: "", codec: Codec::None, no_dictionaries: None, halves: false, gzip: true };

/// What a client is, and what it wishes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Wishes {
    family: &'static Family,
    /// The codec that was named; within, none for `auto`.
    codec: Option<Option<Codec>>,
    /// Whether dictionaries are wanted, where they were spoken of.
    dictionaries: Option<bool>,
    /// How exact numbers are to be, where it was spoken of.
    precision: Option<Precision>,
    /// What is set for those who name no codec; none where nothing is.
    codec_default: CodecDefault,
    /// Whether dictionaries are set for those who do not speak of them.
    dictionaries_default: bool,
    /// Whether the client unpacks gRPC messages that are compressed with gzip.
    unpacks_gzip: bool,
    /// Whether the client is on this machine, or in a network so fast that no compression pays.
    is_near: bool,
}

impl Wishes {
    /// Those of a client that calls itself `agent` and sends these headers.
    ///
    /// # Errors
    /// `INVALID_ARGUMENT`, naming the choices, for a value that is none, and for two values that differ.
    pub(crate) fn of(agent: &str, headers: &HeaderMap) -> Result<Self, Status> {
        Ok(Self {
            family: FAMILIES.iter().find(|family| agent.starts_with(family.prefix)).unwrap_or(&UNKNOWN),
            codec: choice(headers, CODEC, CODECS)?,
            dictionaries: choice(headers, DICTIONARIES, ON_OR_OFF)?,
            precision: choice(headers, PRECISION, PRECISIONS)?,
            codec_default: CodecDefault::Auto,
            dictionaries_default: false,
            unpacks_gzip: unpacks_gzip(headers),
            is_near: false,
        })
    }

    /// Those of nobody anybody knows.
    #[cfg(test)]
    pub(crate) fn of_nobody() -> Self {
        Self {
            family: &UNKNOWN,
            codec: None,
            dictionaries: None,
            precision: None,
            codec_default: CodecDefault::Auto,
            dictionaries_default: false,
            unpacks_gzip: false,
            is_near: false,
        }
    }

    /// The same, of a client that is so near that no compression pays, or not so for this reason.
    pub(crate) fn when_near(self, is_near: bool) -> Self {
        Self { is_near: self.is_near || is_near, ..self }
    }

    /// The same, behind a line and on a server that say what holds where nobody does. Who is behind a line that has a rate is not near,
    /// wherever the connection comes from: so tunnels are told of.
    pub(crate) fn on(self, line: LineDefaults, server: ResultSettings) -> Self {
        let codec_default = match line.codec {
            Some(codec) => codec,
            None if line.is_fast => CodecDefault::Only(Codec::None),
            None => server.codec,
        };
        let dictionaries_default = line.dictionaries.unwrap_or(server.dictionaries);
        Self { codec_default, dictionaries_default, is_near: self.is_near && !line.is_shared, ..self }
            .when_near(line.is_fast)
    }

    /// The same, with the words that the client's session chose for what no header speaks of.
    pub(crate) fn within(self, word: impl Fn(&str) -> Option<&'static str>) -> Self {
        Self {
            codec: self.codec.or_else(|| find(CODECS, word(CODEC)?)),
            dictionaries: self.dictionaries.or_else(|| find(ON_OR_OFF, word(DICTIONARIES)?)),
            precision: self.precision.or_else(|| find(PRECISIONS, word(PRECISION)?)),
            ..self
        }
    }

    /// How results are encoded for the client.
    ///
    /// # Errors
    /// `INVALID_ARGUMENT` for dictionaries where the client is known to read them wrongly, and for half floats where it is not
    /// known to read them.
    pub(crate) fn profile(self) -> Result<WireProfile, Status> {
        let dictionaries =
            self.dictionaries.unwrap_or(self.dictionaries_default && self.family.is_known_to_read_words());
        if let (true, Some(reason)) = (dictionaries, self.family.no_dictionaries) {
            let message = format!("`{DICTIONARIES}: on` is refused for this client: {reason}");
            return Err(refuse(ErrorKind::InvalidInput, message));
        }
        let precision = self.precision.unwrap_or_default();
        if precision == Precision::Float16 && !self.family.halves {
            let message = format!(
                "`{PRECISION}: float16` is refused for this client: Java's drivers do not read half floats, and of others only \
                 some; `rounded` takes little more"
            );
            return Err(refuse(ErrorKind::InvalidInput, message));
        }
        Ok(WireProfile { codec: self.codec(), dictionaries, precision })
    }

    /// How what is no statement's result is compressed for the client.
    pub(crate) fn codec(self) -> Codec {
        let usual = if self.is_near { Codec::None } else { self.family.codec };
        match (self.codec, self.codec_default) {
            (Some(Some(codec)), _) => codec,
            // Whoever unpacks Zstandard unpacks LZ4: the families that do have both.
            (None, CodecDefault::Only(codec)) if self.family.codec != Codec::None => codec,
            (None | Some(None), _) => usual,
        }
    }

    /// Whether gRPC's messages may be compressed for the client: it unpacks them, has nothing better, and nobody wants none.
    pub(crate) fn takes_gzip(self) -> bool {
        let wants_none = match self.codec {
            Some(codec) => codec == Some(Codec::None),
            None => self.codec_default == CodecDefault::Only(Codec::None),
        };
        self.unpacks_gzip && self.family.gzip && !self.is_near && !wants_none && self.codec() == Codec::None
    }
}

impl Family {
    /// Whether all of them are known to read dictionaries, so that they may come without being asked for.
    fn is_known_to_read_words(&self) -> bool {
        self.no_dictionaries.is_none() && !self.prefix.is_empty()
    }
}

/// Whether a client says that it unpacks messages of gRPC that are compressed with gzip.
fn unpacks_gzip(headers: &HeaderMap) -> bool {
    let named = headers.get_all(UNPACKED).iter().filter_map(|value| value.to_str().ok());
    named.flat_map(|value| value.split(',')).any(|word| word.trim() == GZIP)
}

/// Whether a client whose connection comes from `address` is on this machine: no proxy says that it is on another one.
pub(crate) fn is_on_this_machine(address: Option<SocketAddr>, headers: &HeaderMap) -> bool {
    let is_local = address.is_some_and(|address| address.ip().to_canonical().is_loopback());
    is_local && !FORWARDED.iter().any(|name| headers.contains_key(*name))
}

/// The profile of a result whose ticket was made under `fixed`, asked for with `wishes`. It is decided once, so that each call
/// gets the same messages, from whatever network it comes; only a codec that is named in so many words counts still. What the
/// schema says may not differ.
///
/// # Errors
/// `INVALID_ARGUMENT` where dictionaries, or shorter numbers, are wanted now and were not when the schema was announced, or the
/// other way round.
pub(crate) fn at_redemption(fixed: WireProfile, wishes: Wishes) -> Result<WireProfile, Status> {
    let other = |name: &str, then: &str| {
        let message = format!(
            "the result was announced with `{name}: {then}`; send the same header with every call, or run the query again"
        );
        Err(refuse(ErrorKind::InvalidInput, message))
    };
    if wishes.dictionaries.is_some_and(|now| now != fixed.dictionaries) {
        return other(DICTIONARIES, word_for(ON_OR_OFF, fixed.dictionaries));
    }
    if wishes.precision.is_some_and(|now| now != fixed.precision) {
        return other(PRECISION, word_for(PRECISIONS, fixed.precision));
    }
    Ok(WireProfile { codec: wishes.codec.flatten().unwrap_or(fixed.codec), ..fixed })
}

/// What a word stands for.
fn find<T: Copy>(choices: &[(&'static str, T)], word: &str) -> Option<T> {
    choices.iter().find(|(known, _)| word.eq_ignore_ascii_case(known)).map(|(_, value)| *value)
}

/// The word for what one of them stands for.
fn word_for<T: PartialEq>(choices: &[(&'static str, T)], value: T) -> &'static str {
    choices.iter().find(|(_, known)| *known == value).map_or("", |(word, _)| *word)
}

/// The choice a header makes; none where it is not sent.
fn choice<T: Copy + PartialEq>(
    headers: &HeaderMap,
    name: &str,
    choices: &[(&'static str, T)],
) -> Result<Option<T>, Status> {
    let refused = |what: String| {
        let words: Vec<&str> = choices.iter().map(|(word, _)| *word).collect();
        Err(refuse(ErrorKind::InvalidInput, format!("header `{name}` {what}; choose one of {}", words.join(", "))))
    };
    let mut chosen: Option<(&str, T)> = None;
    for value in headers.get_all(name) {
        let word = value.to_str().unwrap_or_default().trim();
        let Some(value) = find(choices, word) else { return refused(format!("is `{}`", word.escape_default())) };
        match chosen {
            Some((before, first)) if first != value => {
                return refused(format!("is sent twice, as `{before}` and as `{word}`"));
            }
            _ => chosen = Some((word, value)),
        }
    }
    Ok(chosen.map(|(_, value)| value))
}

#[cfg(test)]
mod tests {
    use http::HeaderName;
    use tonic::Code;

    use super::*;

    const PYARROW: &str = "grpc-c++/1.81.1 grpc-c/54.0.0 (linux; chttp2)";
    const JAVA: &str = "grpc-java-netty/1.71.0";

    fn wishes(agent: &str, sent: &[(&str, &str)]) -> Result<Wishes, Status> {
        let mut headers = HeaderMap::new();
        for (name, value) in sent {
            headers.append(name.parse::<HeaderName>().unwrap(), value.parse().unwrap());
        }
        Wishes::of(agent, &headers)
    }

    fn profile(agent: &str, sent: &[(&str, &str)]) -> Result<WireProfile, Status> {
        wishes(agent, sent)?.profile()
    }

    #[test]
    fn a_client_gets_what_its_family_decodes() {
        for (agent, codec) in [
            (PYARROW, Codec::Zstd),
            ("ADBC Flight SQL Driver (unknown or development build) grpc-go/1.84.0", Codec::Zstd),
            ("grpc-go/1.58.3", Codec::Zstd),
            ("lakegate/0.1.0 tonic/0.14.9", Codec::Zstd),
            (JAVA, Codec::None),
            ("tonic/0.14.9", Codec::None),
            ("grpc-node-js/1.13.4", Codec::None),
            ("grpc-dotnet/2.71.0", Codec::None),
            ("", Codec::None),
        ] {
            let expected = WireProfile { codec, ..WireProfile::default() };
            assert_eq!(profile(agent, &[]).unwrap(), expected, "{agent}");
            assert_eq!(profile(agent, &[(CODEC, "auto")]).unwrap(), expected, "{agent}");
        }
    }

    #[test]
    fn a_header_decides_over_the_family() {
        for (agent, word, codec) in [
            (PYARROW, "none", Codec::None),
            (PYARROW, "LZ4", Codec::Lz4),
            (JAVA, "zstd", Codec::Zstd),
            ("", " zstd ", Codec::Zstd),
        ] {
            assert_eq!(profile(agent, &[(CODEC, word)]).unwrap().codec, codec, "{agent} {word}");
        }
        assert!(profile(PYARROW, &[(DICTIONARIES, "on")]).unwrap().dictionaries);
        assert!(!profile(PYARROW, &[(DICTIONARIES, "off")]).unwrap().dictionaries);
        assert_eq!(profile(PYARROW, &[(CODEC, "lz4"), (CODEC, "lz4")]).unwrap().codec, Codec::Lz4);
    }

    #[test]
    fn a_session_decides_where_no_header_does() {
        let session = |name: &str| match name {
            CODEC => Some("lz4"),
            DICTIONARIES => Some("on"),
            PRECISION => Some("rounded"),
            _ => None,
        };
        let silent = wishes(PYARROW, &[]).unwrap().within(session);
        assert_eq!(
            silent.profile().unwrap(),
            WireProfile { codec: Codec::Lz4, dictionaries: true, precision: Precision::Rounded }
        );
        let speaking =
            wishes(PYARROW, &[(CODEC, "auto"), (DICTIONARIES, "off"), (PRECISION, "full")]).unwrap().within(session);
        assert_eq!(speaking.profile().unwrap(), WireProfile { codec: Codec::Zstd, ..WireProfile::default() });
        let java = wishes(JAVA, &[]).unwrap().within(session);
        assert!(java.profile().is_err() && java.codec() == Codec::Lz4);
    }

    #[test]
    fn what_is_no_choice_is_refused_with_the_choices() {
        for (sent, told) in [
            (vec![(CODEC, "gzip")], "header `lakegate-codec` is `gzip`; choose one of auto, zstd, lz4, none"),
            (vec![(CODEC, "zstd"), (CODEC, "none")], "is sent twice, as `zstd` and as `none`"),
            (vec![(CODEC, "")], "choose one of auto"),
            (
                vec![(PRECISION, "double")],
                "header `lakegate-precision` is `double`; choose one of full, float32, float16, rounded",
            ),
            (vec![(DICTIONARIES, "true")], "header `lakegate-dictionaries` is `true`; choose one of on, off"),
        ] {
            let status = profile(PYARROW, &sent).unwrap_err();
            assert_eq!(status.code(), Code::InvalidArgument);
            assert!(status.message().contains(told), "{}", status.message());
        }
    }

    #[test]
    fn dictionaries_are_refused_where_they_would_be_read_as_other_values() {
        let status = profile(JAVA, &[(DICTIONARIES, "on")]).unwrap_err();
        assert!(status.code() == Code::InvalidArgument && status.message().contains("positions"), "{status:?}");
        assert!(!profile(JAVA, &[(DICTIONARIES, "off")]).unwrap().dictionaries);
    }

    #[test]
    fn a_ticket_fixes_the_schema_and_the_codec_unless_another_is_named() {
        let announced = WireProfile { codec: Codec::Zstd, dictionaries: true, precision: Precision::Float32 };
        let silent = wishes(PYARROW, &[(CODEC, "none")]).unwrap();
        let redeemed = at_redemption(announced, silent).unwrap();
        assert_eq!(redeemed, WireProfile { codec: Codec::None, ..announced });
        for (agent, near, sent) in [(PYARROW, true, vec![]), ("", false, vec![]), (JAVA, false, vec![(CODEC, "auto")])]
        {
            let elsewhere = wishes(agent, &sent).unwrap().when_near(near);
            assert_eq!(at_redemption(announced, elsewhere).unwrap(), announced, "{agent}");
        }
        let other = wishes(PYARROW, &[(DICTIONARIES, "off")]).unwrap();
        let status = at_redemption(announced, other).unwrap_err();
        assert!(status.message().contains("announced with `lakegate-dictionaries: on`"), "{}", status.message());
        let other = wishes(PYARROW, &[(PRECISION, "full")]).unwrap();
        let status = at_redemption(announced, other).unwrap_err();
        assert!(status.message().contains("announced with `lakegate-precision: float32`"), "{}", status.message());
    }

    #[test]
    fn half_floats_are_for_those_who_are_known_to_read_them() {
        for agent in [JAVA, "grpc-dotnet/2.71.0", ""] {
            let status = profile(agent, &[(PRECISION, "float16")]).unwrap_err();
            assert!(status.code() == Code::InvalidArgument && status.message().contains("half floats"), "{status:?}");
            assert_eq!(profile(agent, &[(PRECISION, "rounded")]).unwrap().precision, Precision::Rounded);
        }
        assert_eq!(profile(PYARROW, &[(PRECISION, "float16")]).unwrap().precision, Precision::Float16);
    }

    #[test]
    fn nothing_is_compressed_for_who_is_near_unless_they_ask() {
        let near = |sent| wishes(PYARROW, sent).unwrap().when_near(true).when_near(false).codec();
        assert_eq!(
            (near(&[]), near(&[(CODEC, "auto")]), near(&[(CODEC, "lz4")])),
            (Codec::None, Codec::None, Codec::Lz4)
        );
    }

    #[test]
    fn a_line_decides_where_nobody_does_and_a_server_where_no_line_does_but_only_what_the_client_reads() {
        let only = |codec| Some(CodecDefault::Only(codec));
        let line = |codec, dictionaries| LineDefaults { codec, dictionaries, ..LineDefaults::default() };
        let server = |codec, dictionaries| ResultSettings { codec: CodecDefault::Only(codec), dictionaries };
        let nothing = LineDefaults::default();
        let session = |name: &str| (name == CODEC).then_some("lz4");
        let of = |agent: &str, sent: &[(&str, &str)], line: LineDefaults, server: ResultSettings| {
            wishes(agent, sent).unwrap().on(line, server)
        };
        let profiled = |wishes: Wishes| wishes.profile().map(|made| (made.codec, made.dictionaries)).unwrap();
        let lz4_on_the_line = line(only(Codec::Lz4), Some(true));
        let none = server(Codec::None, false);
        for (agent, sent, line, server, expected) in [
            (PYARROW, vec![], nothing, none, (Codec::None, false)),
            (PYARROW, vec![], nothing, server(Codec::Lz4, true), (Codec::Lz4, true)),
            (PYARROW, vec![], lz4_on_the_line, none, (Codec::Lz4, true)),
            (PYARROW, vec![], line(Some(CodecDefault::Auto), None), none, (Codec::Zstd, false)),
            (PYARROW, vec![(CODEC, "zstd"), (DICTIONARIES, "off")], lz4_on_the_line, none, (Codec::Zstd, false)),
            (PYARROW, vec![(CODEC, "auto")], lz4_on_the_line, none, (Codec::Zstd, true)),
            (JAVA, vec![], lz4_on_the_line, server(Codec::Zstd, true), (Codec::None, false)),
            (JAVA, vec![(CODEC, "zstd")], lz4_on_the_line, none, (Codec::Zstd, false)),
            ("grpc-node-js/1.13.4", vec![], lz4_on_the_line, server(Codec::Zstd, true), (Codec::None, false)),
            ("tonic/0.14.9", vec![], lz4_on_the_line, none, (Codec::None, true)),
        ] {
            assert_eq!(profiled(of(agent, &sent, line, server)), expected, "{agent} {sent:?} {line:?} {server:?}");
        }
        assert_eq!(of(PYARROW, &[], line(only(Codec::None), None), none).within(session).codec(), Codec::Lz4);
        // A default is what holds where nobody speaks of it, so a ticket made otherwise stays good.
        let announced = WireProfile { codec: Codec::Zstd, dictionaries: false, precision: Precision::Full };
        assert!(at_redemption(announced, of(PYARROW, &[], lz4_on_the_line, none)).is_ok());
    }

    #[test]
    fn a_line_that_is_fast_or_has_a_rate_says_how_far_its_people_are() {
        let here = || wishes(PYARROW, &[]).unwrap().when_near(true);
        let zstd = ResultSettings { codec: CodecDefault::Only(Codec::Zstd), dictionaries: false };
        let fast = LineDefaults { is_fast: true, ..LineDefaults::default() };
        let shared = LineDefaults { is_shared: true, ..LineDefaults::default() };
        assert_eq!(here().on(LineDefaults::default(), ResultSettings::default()).codec(), Codec::None);
        assert_eq!(here().on(shared, ResultSettings::default()).codec(), Codec::Zstd);
        assert_eq!(here().on(fast, zstd).codec(), Codec::None);
    }

    #[test]
    fn gzip_is_for_those_who_unpack_it_and_nothing_better() {
        let offers = (UNPACKED, "identity, deflate,gzip");
        let takes = |agent: &str, sent: &[(&str, &str)]| wishes(agent, sent).unwrap().takes_gzip();
        const NODE: &str = "grpc-node-js/1.13.4";
        assert!(takes(NODE, &[offers]) && takes(NODE, &[offers, (CODEC, "auto")]));
        assert!(!takes(NODE, &[]) && !takes(NODE, &[(UNPACKED, "identity")]));
        assert!(!takes(PYARROW, &[offers]) && !takes(NODE, &[offers, (CODEC, "none")]));
        assert!(!takes(PYARROW, &[offers, (CODEC, "none")]) && !takes(NODE, &[offers, (CODEC, "zstd")]));
        assert!(!takes(JAVA, &[offers]), "it says so and fails");
        let node = wishes(NODE, &[offers]).unwrap();
        assert!(!node.when_near(true).takes_gzip());
        let none = ResultSettings { codec: CodecDefault::Only(Codec::None), dictionaries: false };
        assert!(!node.on(LineDefaults::default(), none).takes_gzip());
    }

    #[test]
    fn who_comes_through_a_proxy_is_not_on_this_machine() {
        let none = HeaderMap::new();
        let is_here = |address: &str, headers| is_on_this_machine(Some(address.parse().unwrap()), headers);
        for address in ["127.0.0.1:1", "[::1]:1", "[::ffff:127.0.0.1]:1"] {
            assert!(is_here(address, &none), "{address}");
        }
        assert!(!is_here("10.0.0.1:1", &none) && !is_on_this_machine(None, &none));
        let mut forwarded = HeaderMap::new();
        forwarded.insert("x-forwarded-for", "10.0.0.1".parse().unwrap());
        assert!(!is_here("127.0.0.1:1", &forwarded));
    }
}
