//! How many connections there is room for: each needs a descriptor, and while upstream is asked for it
//! another one. Half of them may ask at a time.

/// Descriptors for everything that is no caller: listeners, the store, Entra, operators, files.
const OTHERS: u64 = 32;
/// Connections beyond the room, for health probes alone.
const RESERVE: u64 = 16;

/// Room of one thread.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Room {
    /// Connections that are served.
    pub(super) most: usize,
    /// Further ones, on which health probes alone are answered.
    reserve: usize,
}

impl Room {
    /// For a few.
    pub(crate) const SMALL: Self = Self { most: 32, reserve: 0 };

    /// What each of some threads may take of a process's descriptors.
    pub(crate) fn of(descriptors: u64, threads: usize) -> Self {
        let for_callers = descriptors.saturating_sub(OTHERS);
        let reserve = RESERVE.min(for_callers / 4);
        let share = |all: u64| usize::try_from(all).unwrap_or(usize::MAX).div_ceil(threads).max(1);
        Self { most: share((for_callers - reserve) * 2 / 3), reserve: share(reserve) }
    }

    pub(super) fn with_reserve(self) -> usize {
        self.most + self.reserve
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn three_descriptors_for_two_callers_leave_some_for_the_rest() {
        let room = Room::of(1024, 2);
        assert!((room.most * 3 / 2 + room.reserve) * 2 + 32 <= 1024 + 4, "{room:?}");
        let tiny = Room::of(20, 2);
        assert_eq!((tiny.most, tiny.reserve), (1, 1));
    }
}
