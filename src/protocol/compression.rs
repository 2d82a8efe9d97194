//! Packs bodies, and unpacks them within bounds, in the formats that kombu really writes.
//!
//! What kombu calls gzip is a zlib stream. A few bytes can unpack to terabytes, so unpacking stops at the limit. In
//! some formats the packer decides how much memory the unpacker needs; these may ask for no more than kombu's own
//! packers do.
//!
//! The work is bounded too, because a body can ask for much of it without any output: hundreds of thousands of empty
//! members in a body of bzip2 keep a processor busy for most of a minute.

use std::io::{self, BufRead, Read, Write};
use std::time::{Duration, Instant};

use super::Reason;
use super::headers::shortened;

/// The most memory that xz may ask for. Its highest preset takes 65 MiB.
const XZ_MEMORY: u64 = 72 << 20;
/// The largest window of zstd, as a power of two: 32 MiB. The levels up to 19 take 8 MiB.
const ZSTD_WINDOW: u32 = 25;
/// The most streams that may follow one another in a body. A packer writes one; `cat` and parallel packers write a
/// few.
const MEMBERS: usize = 256;
/// The longest time that unpacking may take. Honest bodies take some tenths of a second at the default limit. The queue
/// that a body came through waits for it, and whoever sends such bodies may send many.
const PATIENCE: Duration = Duration::from_secs(2);
/// How many packed bytes are read between two looks at the clock.
const PACE: usize = 4 << 10;

/// Unpacks a body that is packed as its header `compression` says. `limit` is the most bytes of the result.
pub(super) fn unpack(body: &[u8], compression: &str, limit: usize) -> Result<Vec<u8>, Reason> {
    unpack_within(body, compression, limit, PATIENCE)
}

/// Packs a body by kombu's name for a compression, or by its content type. Answers with the packed body and the content
/// type, which is the value of its header `compression`. `None`: there is no such compression.
pub(super) fn pack(body: &[u8], compression: &str) -> Option<(Vec<u8>, &'static str)> {
    Some(match compression {
        "application/x-gzip" | "application/gzip" | "gzip" | "zlib" => {
            let mut encoder = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::default());
            encoder.write_all(body).ok()?;
            (encoder.finish().ok()?, "application/x-gzip")
        }
        "application/x-bz2" | "bzip2" | "bzip" => {
            let mut encoder = bzip2::write::BzEncoder::new(Vec::new(), bzip2::Compression::default());
            encoder.write_all(body).ok()?;
            (encoder.finish().ok()?, "application/x-bz2")
        }
        "application/x-lzma" | "lzma" | "xz" => (liblzma::encode_all(body, 6).ok()?, "application/x-lzma"),
        "application/x-brotli" | "brotli" => {
            // The best quality, which is the default, takes seconds for a megabyte.
            let params = brotli::enc::BrotliEncoderParams { quality: 5, ..Default::default() };
            let mut packed = Vec::new();
            brotli::BrotliCompress(&mut &*body, &mut packed, &params).ok()?;
            (packed, "application/x-brotli")
        }
        "application/zstd" | "zstd" | "zstandard" => {
            (zstd::encode_all(body, zstd::DEFAULT_COMPRESSION_LEVEL).ok()?, "application/zstd")
        }
        _ => return None,
    })
}

fn unpack_within(
    body: &[u8],
    compression: &str,
    limit: usize,
    patience: Duration,
) -> Result<Vec<u8>, Reason> {
    let packed = Packed { rest: body, until: Instant::now() + patience, patience };
    let unpacked = match compression {
        "application/x-gzip" | "application/gzip" | "gzip" | "zlib" => match body {
            // A real gzip file is unpacked too: kombu would refuse it, but other senders may write one.
            [0x1f, 0x8b, ..] => members(packed, limit, |packed, out, room| {
                flate2::bufread::GzDecoder::new(packed).take(room).read_to_end(out)
            }),
            _ => one(flate2::bufread::ZlibDecoder::new(packed), limit),
        },
        "application/x-bz2" | "bzip2" | "bzip" => members(packed, limit, |packed, out, room| {
            bzip2::bufread::BzDecoder::new(packed).take(room).read_to_end(out)
        }),
        "application/x-lzma" | "lzma" | "xz" => xz(packed).and_then(|decoder| one(decoder, limit)),
        "application/x-brotli" | "brotli" => one(brotli::Decompressor::new(packed, 4096), limit),
        "application/zstd" | "zstd" | "zstandard" => members(packed, limit, |packed, out, room| {
            let mut decoder = zstd::Decoder::with_buffer(packed)?.single_frame();
            decoder.window_log_max(ZSTD_WINDOW)?;
            decoder.take(room).read_to_end(out)
        }),
        other => return Err(Reason::Compression(shortened(other))),
    };
    match unpacked {
        Ok(Some(unpacked)) => Ok(unpacked),
        Ok(None) => Err(Reason::TooLarge { limit, unpacked: true }),
        Err(error) => Err(Reason::Unpack { compression: compression.to_owned(), error: error.to_string() }),
    }
}

fn xz(packed: Packed<'_>) -> io::Result<impl Read> {
    let stream = liblzma::stream::Stream::new_auto_decoder(XZ_MEMORY, 0)?;
    Ok(liblzma::bufread::XzDecoder::new_stream(packed, stream))
}

/// The room for one byte more than the limit, so that a result above the limit shows.
fn room(limit: usize, taken: usize) -> u64 {
    (limit as u64).saturating_add(1).saturating_sub(taken as u64)
}

/// Unpacks one stream; `None` if the result exceeds the limit.
fn one(decoder: impl Read, limit: usize) -> io::Result<Option<Vec<u8>>> {
    let mut unpacked = Vec::new();
    decoder.take(room(limit, 0)).read_to_end(&mut unpacked)?;
    Ok((unpacked.len() <= limit).then_some(unpacked))
}

/// Unpacks streams that follow one another; `None` if the result exceeds the limit.
fn members<'a>(
    mut packed: Packed<'a>,
    limit: usize,
    unpack: impl Fn(&mut Packed<'a>, &mut Vec<u8>, u64) -> io::Result<usize>,
) -> io::Result<Option<Vec<u8>>> {
    let mut unpacked = Vec::new();
    for _ in 0..MEMBERS {
        let room = room(limit, unpacked.len());
        unpack(&mut packed, &mut unpacked, room)?;
        if unpacked.len() > limit {
            return Ok(None);
        }
        if packed.rest.is_empty() {
            return Ok(Some(unpacked));
        }
    }
    Err(io::Error::other(format!("it has more than {MEMBERS} streams, one after the other")))
}

/// A packed body that is read in pieces and fails to read once its time is over.
struct Packed<'a> {
    rest: &'a [u8],
    until: Instant,
    patience: Duration,
}

impl BufRead for Packed<'_> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        if Instant::now() >= self.until {
            return Err(io::Error::other(format!("it takes more than {:?}", self.patience)));
        }
        Ok(&self.rest[..self.rest.len().min(PACE)])
    }

    fn consume(&mut self, count: usize) {
        self.rest = &self.rest[count..];
    }
}

impl Read for Packed<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.fill_buf()?.read(buffer)?;
        self.consume(count);
        Ok(count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &[u8] = b"[[1, 1], {}, null]";

    fn packed(compression: &str, text: &[u8]) -> Vec<u8> {
        match compression {
            "gzip" => {
                let mut encoder = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::default());
                encoder.write_all(text).unwrap();
                encoder.finish().unwrap()
            }
            "bzip2" => {
                let mut encoder = bzip2::write::BzEncoder::new(Vec::new(), bzip2::Compression::default());
                encoder.write_all(text).unwrap();
                encoder.finish().unwrap()
            }
            "lzma" => liblzma::encode_all(text, 6).unwrap(),
            "brotli" => {
                let mut out = Vec::new();
                brotli::BrotliCompress(&mut &*text, &mut out, &brotli::enc::BrotliEncoderParams::default())
                    .unwrap();
                out
            }
            "zstd" => zstd::encode_all(text, 3).unwrap(),
            other => panic!("{other}"),
        }
    }

    #[test]
    fn what_is_packed_here_unpacks_by_the_name_that_it_is_given() {
        for compression in ["gzip", "zlib", "bzip2", "bzip", "lzma", "xz", "brotli", "zstd", "zstandard"] {
            let (packed, name) = pack(TEXT, compression).unwrap();
            assert_ne!(packed, TEXT);
            assert!(name.starts_with("application/"), "{name}");
            assert_eq!(unpack(&packed, name, 100).unwrap(), TEXT, "{compression}");
            assert_eq!(pack(TEXT, name).map(|(_, same)| same), Some(name));
        }
        assert_eq!(pack(TEXT, "zip"), None);
    }

    #[test]
    fn each_format_unpacks_and_a_bomb_stops_at_the_limit() {
        let bomb = vec![b' '; 20 << 20];
        for compression in ["gzip", "bzip2", "lzma", "brotli", "zstd"] {
            assert_eq!(unpack(&packed(compression, TEXT), compression, 100).unwrap(), TEXT);
            assert_eq!(unpack(&packed(compression, TEXT), compression, TEXT.len()).unwrap(), TEXT);
            let too_large = Err(Reason::TooLarge { limit: 17, unpacked: true });
            assert_eq!(unpack(&packed(compression, TEXT), compression, 17), too_large);
            let packed_bomb = packed(compression, &bomb);
            assert!(packed_bomb.len() < 100_000, "{compression}");
            let too_large = Err(Reason::TooLarge { limit: 1 << 20, unpacked: true });
            assert_eq!(unpack(&packed_bomb, compression, 1 << 20), too_large, "{compression}");
        }
    }

    #[test]
    fn garbage_and_unknown_formats_have_a_reason() {
        for compression in ["gzip", "bzip2", "lzma", "brotli", "zstd"] {
            for body in [b"no such thing".as_slice(), b"", &packed(compression, TEXT)[..10]] {
                let error = unpack(body, compression, 100).unwrap_err().to_string();
                assert!(
                    error.starts_with(&format!("the body does not unpack as `{compression}`: ")),
                    "{error}"
                );
            }
        }
        assert_eq!(
            unpack(TEXT, "application/x-lz4", 100),
            Err(Reason::Compression("application/x-lz4".into()))
        );
    }

    /// Bodies that ask for much work and have no output.
    #[test]
    fn work_has_a_bound_of_its_own() {
        for compression in ["bzip2", "zstd"] {
            let empty = packed(compression, b"");
            assert_eq!(unpack(&empty.repeat(MEMBERS), compression, 100).unwrap(), b"");
            let start = Instant::now();
            let error = unpack(&empty.repeat(4_000_000 / empty.len()), compression, 4 << 20).unwrap_err();
            assert!(error.to_string().contains("more than 256 streams"), "{compression}: {error}");
            assert!(start.elapsed() < Duration::from_secs(60), "{compression}: {:?}", start.elapsed());
        }
        for compression in ["gzip", "bzip2", "lzma", "brotli", "zstd"] {
            let error = unpack_within(&packed(compression, TEXT), compression, 100, Duration::ZERO);
            let error = error.unwrap_err().to_string();
            assert!(error.contains("it takes more than 0ns"), "{compression}: {error}");
        }
    }

    #[test]
    fn streams_one_after_the_other_are_one_body() {
        for compression in ["bzip2", "zstd"] {
            let two = [packed(compression, &TEXT[..5]), packed(compression, &TEXT[5..])].concat();
            assert_eq!(unpack(&two, compression, TEXT.len()).unwrap(), TEXT);
            assert!(matches!(unpack(&two, compression, 10), Err(Reason::TooLarge { .. })), "{compression}");
        }
    }

    /// A frame that asks for 128 MiB of memory before it has any output.
    #[test]
    fn a_window_beyond_reason_is_refused() {
        let mut encoder = zstd::Encoder::new(Vec::new(), 3).unwrap();
        encoder.window_log(27).unwrap();
        encoder.write_all(TEXT).unwrap();
        let error = unpack(&encoder.finish().unwrap(), "zstd", 100).unwrap_err();
        assert!(error.to_string().contains("requires too much memory"), "{error}");
    }

    #[test]
    fn a_real_gzip_file_is_read_too() {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
        encoder.write_all(TEXT).unwrap();
        assert_eq!(unpack(&encoder.finish().unwrap(), "application/x-gzip", 100).unwrap(), TEXT);
    }
}
