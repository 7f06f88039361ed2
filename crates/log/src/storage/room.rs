//! Room on the disk: how much of it intake leaves alone, by what rule, and the word about there being too little. Pure.

/// Largest reserve of the rule `auto`.
const AUTO_BYTES_MAX: u64 = 256 * 1024 * 1024;
/// Part of the file system that is the reserve of the rule `auto` where that is less.
const AUTO_DIVISOR: u64 = 10;
/// Smallest reserve of the rule `auto`: enough for retention to work in.
const AUTO_BYTES_MIN: u64 = 16 * 1024 * 1024;
/// Largest reserve as a part of the file system, in percent.
pub const RESERVE_PERCENT_MAX: u8 = 90;

/// The free bytes of a file system below which intake stops, as they are configured.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Reserve {
    /// A tenth of the file system, at most 256 MiB, at least 16 MiB.
    #[default]
    Auto,
    /// So many bytes; zero leaves nothing alone.
    Bytes(u64),
    /// A part of the file system, in percent.
    Percent(u8),
}

impl Reserve {
    /// The reserve on a file system of this size.
    #[must_use]
    pub fn bytes(self, file_system_bytes: u64) -> u64 {
        match self {
            Self::Auto => (file_system_bytes / AUTO_DIVISOR).clamp(AUTO_BYTES_MIN, AUTO_BYTES_MAX),
            Self::Bytes(bytes) => bytes,
            Self::Percent(percent) => {
                let part = u128::from(file_system_bytes) * u128::from(percent.min(100)) / 100;
                u64::try_from(part).unwrap_or(u64::MAX)
            }
        }
    }
}

/// What is free where the data is, and what of it is left alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{free_bytes} bytes are free, and {reserve_bytes} of them are the reserve")]
pub struct Room {
    /// Bytes that could be written; what retention freed inside the database counts.
    pub free_bytes: u64,
    /// Bytes that intake leaves alone.
    pub reserve_bytes: u64,
}

impl Room {
    /// Whether intake must stop.
    #[must_use]
    pub fn is_short(&self) -> bool {
        self.free_bytes < self.reserve_bytes
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const MIB: u64 = 1024 * 1024;

    #[test]
    fn auto_is_a_tenth_of_a_small_disk_and_never_much_of_a_large_one() {
        for (disk_mib, reserve_mib) in
            [(0, 16), (40, 16), (160, 16), (200, 20), (1_000, 100), (2_560, 256), (1_000_000, 256), (u64::MAX / MIB, 256)]
        {
            assert_eq!(Reserve::Auto.bytes(disk_mib * MIB), reserve_mib * MIB, "of {disk_mib} MiB");
        }
        assert_eq!(Reserve::Percent(3).bytes(1000 * MIB), 30 * MIB);
        assert_eq!(Reserve::Bytes(7).bytes(1000 * MIB), 7);
        assert!(!Room { free_bytes: 0, reserve_bytes: Reserve::Bytes(0).bytes(MIB) }.is_short());
    }

    proptest! {
        #[test]
        fn a_part_of_a_disk_is_never_more_than_the_disk(disk in any::<u64>(), percent in any::<u8>()) {
            prop_assert!(Reserve::Percent(percent).bytes(disk) <= disk);
            prop_assert!(Reserve::Percent(0).bytes(disk) == 0);
        }
    }
}
