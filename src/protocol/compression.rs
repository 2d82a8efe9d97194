//! Compressed bodies as kombu really writes them, unpacked within bounds.
//!
//! What is called gzip there is a zlib stream. A few bytes can unpack to terabytes, so unpacking stops at the limit, and the
//! formats whose packer decides how much memory the unpacker needs are held to what kombu's own packers ask for.

use std::io::{self, Read};

use super::Reason;

/// The memory that xz may ask for: its highest preset takes 65 MiB.
const XZ_MEMORY: u64 = 72 << 20;
/// The largest window of zstd, as a power of two: 32 MiB. Levels up to 19 take 8 MiB.
const ZSTD_WINDOW: u32 = 25;

/// Unpacks a body that a header `compression` says to be packed.
pub(super) fn unpack(body: &[u8], compression: &str, limit: usize) -> Result<Vec<u8>, Reason> {
    let unpacked = match compression {
        "application/x-gzip" | "application/gzip" | "gzip" | "zlib" => match body {
            // A real gzip file: kombu would refuse it, other senders may well mean it.
            [0x1f, 0x8b, ..] => read(flate2::bufread::MultiGzDecoder::new(body), limit),
            _ => read(flate2::bufread::ZlibDecoder::new(body), limit),
        },
        "application/x-bz2" | "bzip2" | "bzip" => read(bzip2::bufread::MultiBzDecoder::new(body), limit),
        "application/x-lzma" | "lzma" | "xz" => xz(body).and_then(|decoder| read(decoder, limit)),
        "application/x-brotli" | "brotli" => read(brotli::Decompressor::new(body, 4096), limit),
        "application/zstd" | "zstd" | "zstandard" => zstd(body).and_then(|decoder| read(decoder, limit)),
        other => return Err(Reason::Compression(other.to_owned())),
    };
    match unpacked {
        Ok(Some(unpacked)) => Ok(unpacked),
        Ok(None) => Err(Reason::TooLarge { limit, unpacked: true }),
        Err(error) => Err(Reason::Unpack { compression: compression.to_owned(), error: error.to_string() }),
    }
}

fn xz(body: &[u8]) -> io::Result<impl Read> {
    let stream = liblzma::stream::Stream::new_auto_decoder(XZ_MEMORY, 0)?;
    Ok(liblzma::bufread::XzDecoder::new_stream(body, stream))
}

fn zstd(body: &[u8]) -> io::Result<impl Read> {
    let mut decoder = zstd::Decoder::with_buffer(body)?;
    decoder.window_log_max(ZSTD_WINDOW)?;
    Ok(decoder)
}

/// `None`: more than the limit.
fn read(decoder: impl Read, limit: usize) -> io::Result<Option<Vec<u8>>> {
    let mut unpacked = Vec::new();
    decoder.take((limit as u64).saturating_add(1)).read_to_end(&mut unpacked)?;
    Ok((unpacked.len() <= limit).then_some(unpacked))
}

#[cfg(test)]
mod tests {
    use std::io::Write;

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

    /// A frame that wants 128 MiB of memory before it has said anything.
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
