//! Behaviour of the gzip decoder.

use std::io::Write;

use flate2::{Compression, GzBuilder};
use proptest::prelude::*;

use super::*;

fn gzip(data: &[u8]) -> Vec<u8> {
    let builder = GzBuilder::new().filename("name").extra(vec![1; 9]).comment("c");
    let mut encoder = builder.write(Vec::new(), Compression::default());
    encoder.write_all(data).unwrap();
    encoder.finish().unwrap()
}

fn decode(pieces: &[&[u8]]) -> (Vec<u8>, Result<(), GzipFault>) {
    let mut decoder = GzipDecoder::new();
    let mut out = Vec::new();
    for piece in pieces {
        decoder.feed(Bytes::copy_from_slice(piece));
        loop {
            match decoder.next_piece() {
                Ok(Some(piece)) => out.extend_from_slice(&piece),
                Ok(None) => break,
                Err(fault) => return (out, Err(fault)),
            }
        }
    }
    (out, decoder.finish())
}

#[test]
fn members_follow_one_another() {
    let body = [gzip(b"one\n"), gzip(b""), gzip(b"two\n")].concat();
    assert_eq!(decode(&[&body]), (b"one\ntwo\n".to_vec(), Ok(())));
    for cut in 0..body.len() {
        assert_eq!(decode(&[&body[..cut], &body[cut..]]), (b"one\ntwo\n".to_vec(), Ok(())), "cut at {cut}");
    }
    assert_eq!(decode(&[]), (Vec::new(), Ok(())));
}

#[test]
fn a_flushed_piece_is_out_before_the_member_ends() {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(b"{\"a\":1}\n").unwrap();
    encoder.flush().unwrap();
    let (out, end) = decode(&[encoder.get_ref()]);
    assert_eq!(out, b"{\"a\":1}\n");
    assert_eq!(end, Err(GzipFault::Truncated));
}

#[test]
fn what_came_before_the_damage_is_kept() {
    let mut body = gzip(b"good\n");
    let mut bad = gzip(&b"never ".repeat(20));
    let middle = bad.len() - 12;
    bad[middle] ^= 0xff;
    body.extend_from_slice(&bad);
    let (out, end) = decode(&[&body]);
    assert!(out.starts_with(b"good\n"));
    assert_eq!(end, Err(GzipFault::Corrupt));
    assert_eq!(decode(&[b"{\"a\":1}\n"]).1, Err(GzipFault::Corrupt));
}

#[test]
fn a_bomb_is_stopped_early() {
    let body = gzip(&vec![0; 64 * 1024 * 1024]);
    let (out, end) = decode(&[&body]);
    assert_eq!(end, Err(GzipFault::DecompressionLimit));
    assert!(out.len() < 17 * 1024 * 1024, "{}", out.len());
}

#[test]
fn a_header_without_end_is_refused() {
    let mut body = vec![0x1f, 0x8b, 8, FLAG_NAME, 0, 0, 0, 0, 0, 0];
    body.extend_from_slice(&[b'x'; 2 * HEADER_BYTES_MAX]);
    assert_eq!(decode(&[&body]).1, Err(GzipFault::Corrupt));
}

proptest! {
    #[test]
    fn any_data_survives_any_cutting(data in prop::collection::vec(any::<u8>(), 0..300), size in 1usize..40) {
        let body = gzip(&data);
        let pieces: Vec<&[u8]> = body.chunks(size).collect();
        prop_assert_eq!(decode(&pieces), (data, Ok(())));
    }

    #[test]
    fn any_bytes_end_in_an_answer(data in prop::collection::vec(any::<u8>(), 0..200)) {
        let with_header = [&[0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 0], data.as_slice()].concat();
        let _ = decode(&[&data]);
        let _ = decode(&[&with_header]);
    }
}
