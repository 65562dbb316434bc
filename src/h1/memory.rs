//! Memory budget of the process for unfinished requests and responses of all connections.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

/// The budget is exhausted.
#[derive(Debug, Clone, Copy, thiserror::Error)]
#[error("the memory for unfinished requests is exhausted")]
pub(crate) struct Exhausted;

/// A budget in bytes, shared by all threads. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct MemoryBudget(Arc<Budget>);

#[derive(Debug)]
struct Budget {
    max: usize,
    taken: AtomicUsize,
}

impl Default for MemoryBudget {
    /// Without a limit.
    fn default() -> Self {
        Self::of(usize::MAX)
    }
}

impl MemoryBudget {
    /// A budget of `max` bytes.
    pub(crate) fn of(max: usize) -> Self {
        Self(Arc::new(Budget { max, taken: AtomicUsize::new(0) }))
    }

    /// True if half of the budget is taken. Buffers are then fitted to their content.
    pub(crate) fn is_scarce(&self) -> bool {
        self.taken() >= self.0.max / 2
    }

    /// True if all of the budget is taken.
    pub(crate) fn is_exhausted(&self) -> bool {
        self.taken() >= self.0.max
    }

    fn taken(&self) -> usize {
        self.0.taken.load(Ordering::Relaxed)
    }

    fn is_limited(&self) -> bool {
        self.0.max < usize::MAX
    }
}

/// Part of a budget, returned on drop.
#[derive(Debug, Default)]
pub(crate) struct Reservation {
    memory: Option<MemoryBudget>,
    bytes: usize,
}

impl Reservation {
    /// Grows the share to `bytes`. A share never shrinks before its release.
    ///
    /// # Errors
    /// When the budget is exhausted; the share is then unchanged.
    pub(crate) fn grow_to(&mut self, bytes: usize, memory: &MemoryBudget) -> Result<(), Exhausted> {
        let before = self.bytes;
        self.grow_unchecked(bytes, memory);
        let more = self.bytes - before;
        if more > 0 && memory.taken() > memory.0.max {
            memory.0.taken.fetch_sub(more, Ordering::Relaxed);
            self.bytes = before;
            return Err(Exhausted);
        }
        Ok(())
    }

    /// As [`Self::grow_to`], but may exceed the budget: for bytes already in memory that must not be lost.
    pub(crate) fn grow_unchecked(&mut self, bytes: usize, memory: &MemoryBudget) {
        if bytes <= self.bytes || !memory.is_limited() {
            return;
        }
        memory.0.taken.fetch_add(bytes - self.bytes, Ordering::Relaxed);
        self.bytes = bytes;
        if self.memory.is_none() {
            self.memory = Some(memory.clone());
        }
    }

    /// Returns all of the share.
    pub(crate) fn release(&mut self) {
        if let Some(memory) = self.memory.take() {
            memory.0.taken.fetch_sub(std::mem::take(&mut self.bytes), Ordering::Relaxed);
        }
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        self.release();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_never_exceed_the_budget_and_return_all_they_took() {
        let memory = MemoryBudget::of(100);
        let (mut one, mut other) = (Reservation::default(), Reservation::default());
        one.grow_to(40, &memory).unwrap();
        other.grow_to(50, &memory).unwrap();
        assert!(memory.is_scarce() && !memory.is_exhausted());
        assert!(one.grow_to(51, &memory).is_err());
        assert_eq!(memory.taken(), 90, "a refused share takes nothing");
        one.grow_to(30, &memory).unwrap();
        one.grow_to(50, &memory).unwrap();
        assert!(memory.is_exhausted());
        other.grow_unchecked(70, &memory);
        assert_eq!(memory.taken(), 120);
        other.release();
        drop(one);
        assert_eq!(memory.taken(), 0);
    }

    #[test]
    fn without_a_limit_nothing_is_counted() {
        let (memory, mut share) = (MemoryBudget::default(), Reservation::default());
        share.grow_to(usize::MAX - 1, &memory).unwrap();
        assert_eq!(memory.taken(), 0);
        assert!(!memory.is_scarce());
    }
}
