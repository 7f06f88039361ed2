//! Whole numbers of few bytes: LEB128, and zigzag for those that may be negative. Pure.

/// Adds a number.
pub fn put(bytes: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        bytes.push(0x80 | u8::try_from(value & 0x7f).unwrap_or_default());
        value >>= 7;
    }
    bytes.push(u8::try_from(value).unwrap_or_default());
}

/// Adds a number that may be negative; small ones of either sign are short.
pub fn put_signed(bytes: &mut Vec<u8>, value: i64) {
    put(bytes, (value.wrapping_shl(1) ^ (value >> 63)).cast_unsigned());
}

/// Takes a number off the front; `None` when the bytes end or it has more than 64 bits.
pub fn take(rest: &mut &[u8]) -> Option<u64> {
    let mut value = 0u64;
    for shift in (0..64).step_by(7) {
        let (byte, tail) = rest.split_first()?;
        *rest = tail;
        value |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}

/// Takes a number off the front that [`put_signed`] added.
pub fn take_signed(rest: &mut &[u8]) -> Option<i64> {
    let value = take(rest)?;
    Some((value >> 1).cast_signed() ^ -((value & 1).cast_signed()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn numbers_come_back(value in any::<u64>(), signed in any::<i64>()) {
            let mut bytes = Vec::new();
            put(&mut bytes, value);
            put_signed(&mut bytes, signed);
            let mut rest = &bytes[..];
            prop_assert_eq!((take(&mut rest), take_signed(&mut rest)), (Some(value), Some(signed)));
            prop_assert!(rest.is_empty());
        }
    }
}
