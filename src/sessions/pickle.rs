//! Reads the pickles that cachelib writes: plain data only.
//!
//! A pickle is a program for a stack machine, and unpickling runs it. This machine knows the
//! opcodes that build plain data (Python's `pickletools`, protocols 2 to 5) and stops at any other:
//! nothing is looked up, called or constructed.

use serde_json::{Map, Number, Value};

/// Largest pickle read, in bytes.
const LARGEST: usize = 4 * 1024 * 1024;

/// A slot of the stack.
#[derive(Clone)]
enum Slot {
    Mark,
    /// A value and how deep it nests.
    Value(Value, usize),
}

struct Machine<'a> {
    rest: &'a [u8],
    stack: Vec<Slot>,
    memo: Vec<(u64, Value, usize)>,
    deepest: usize,
    /// What copies out of the memo may still cost.
    copies_left: usize,
}

/// The value that a pickle builds; `None` when it is not plain data, nests deeper than `deepest`, is
/// longer than 4 MiB, or anything else is odd about it.
pub(super) fn read(pickle: &[u8], deepest: usize) -> Option<Value> {
    if pickle.len() > LARGEST {
        return None;
    }
    let mut machine = Machine {
        rest: pickle,
        stack: Vec::new(),
        memo: Vec::new(),
        deepest,
        copies_left: LARGEST,
    };
    while machine.step()? {}
    match machine.stack.pop()? {
        Slot::Value(value, _) if machine.stack.is_empty() => Some(value),
        _ => None,
    }
}

impl Machine<'_> {
    /// Runs one opcode; false at STOP.
    fn step(&mut self) -> Option<bool> {
        match self.byte()? {
            b'.' => return Some(false),
            // PROTO, FRAME
            0x80 => drop(self.take(1)?),
            0x95 => drop(self.take(8)?),
            b'(' => self.stack.push(Slot::Mark),
            b'N' => self.push(Value::Null, 0)?,
            0x88 => self.push(Value::Bool(true), 0)?,
            0x89 => self.push(Value::Bool(false), 0)?,
            // BININT1, BININT2, BININT, LONG1
            b'K' => self.push_number(1, false)?,
            b'M' => self.push_number(2, false)?,
            b'J' => self.push_number(4, true)?,
            0x8a => {
                let length = usize::from(self.byte()?);
                self.push_number(length, true)?;
            }
            // BINFLOAT
            b'G' => {
                let float = f64::from_be_bytes(self.take(8)?.try_into().ok()?);
                self.push(Value::Number(Number::from_f64(float)?), 0)?;
            }
            // SHORT_BINUNICODE, BINUNICODE, BINUNICODE8
            0x8c => self.push_text(1)?,
            b'X' => self.push_text(4)?,
            0x8d => self.push_text(8)?,
            b'}' => self.push(Value::Object(Map::new()), 1)?,
            b']' | b')' => self.push(Value::Array(Vec::new()), 1)?,
            // APPEND, APPENDS
            b'a' => {
                let item = self.pop()?;
                self.extend_list(vec![item])?;
            }
            b'e' => {
                let items = self.pop_to_mark()?;
                self.extend_list(items)?;
            }
            // SETITEM, SETITEMS
            b's' => {
                let (value, key) = (self.pop()?, self.pop()?);
                self.extend_map(vec![key, value])?;
            }
            b'u' => {
                let items = self.pop_to_mark()?;
                self.extend_map(items)?;
            }
            // TUPLE1, TUPLE2, TUPLE3, TUPLE
            opcode @ 0x85..=0x87 => {
                let length = usize::from(opcode - 0x84);
                let start = self.stack.len().checked_sub(length)?;
                self.stack.insert(start, Slot::Mark);
                self.push_tuple()?;
            }
            b't' => self.push_tuple()?,
            // MEMOIZE, BINPUT, LONG_BINPUT
            0x94 => self.memoize(self.memo.len() as u64)?,
            b'q' => {
                let index = self.number(1)?;
                self.memoize(index)?;
            }
            b'r' => {
                let index = self.number(4)?;
                self.memoize(index)?;
            }
            // BINGET, LONG_BINGET
            b'h' => {
                let index = self.number(1)?;
                self.recall(index)?;
            }
            b'j' => {
                let index = self.number(4)?;
                self.recall(index)?;
            }
            _ => return None,
        }
        Some(true)
    }

    fn byte(&mut self) -> Option<u8> {
        self.take(1).map(|bytes| bytes[0])
    }

    fn take(&mut self, length: usize) -> Option<&[u8]> {
        let (taken, rest) = self.rest.split_at_checked(length)?;
        self.rest = rest;
        Some(taken)
    }

    /// Little-endian, unsigned, of up to 8 bytes.
    fn number(&mut self, length: usize) -> Option<u64> {
        let mut bytes = [0; 8];
        bytes.get_mut(..length)?.copy_from_slice(self.take(length)?);
        Some(u64::from_le_bytes(bytes))
    }

    fn push_number(&mut self, length: usize, signed: bool) -> Option<()> {
        if length > 9 {
            return None;
        }
        let taken = self.take(length)?;
        let is_negative = signed && taken.last().is_some_and(|last| last & 0x80 != 0);
        let mut bytes = [if is_negative { 0xff } else { 0 }; 16];
        bytes[..length].copy_from_slice(taken);
        let number = i128::from_le_bytes(bytes);
        let number = i64::try_from(number)
            .map(Number::from)
            .or_else(|_| u64::try_from(number).map(Number::from))
            .ok()?;
        self.push(Value::Number(number), 0)
    }

    fn push_text(&mut self, length_bytes: usize) -> Option<()> {
        let length = usize::try_from(self.number(length_bytes)?).ok()?;
        let text = String::from_utf8(self.take(length)?.to_vec()).ok()?;
        self.push(Value::String(text), 0)
    }

    fn push(&mut self, value: Value, depth: usize) -> Option<()> {
        self.stack.push(Slot::Value(value, depth));
        (depth <= self.deepest).then_some(())
    }

    fn pop(&mut self) -> Option<(Value, usize)> {
        match self.stack.pop()? {
            Slot::Value(value, depth) => Some((value, depth)),
            Slot::Mark => None,
        }
    }

    fn pop_to_mark(&mut self) -> Option<Vec<(Value, usize)>> {
        let mark = self.stack.iter().rposition(|slot| matches!(slot, Slot::Mark))?;
        let items = self.stack.split_off(mark + 1);
        self.stack.pop();
        items
            .into_iter()
            .map(|slot| match slot {
                Slot::Value(value, depth) => Some((value, depth)),
                Slot::Mark => None,
            })
            .collect()
    }

    fn push_tuple(&mut self) -> Option<()> {
        let items = self.pop_to_mark()?;
        self.push(Value::Array(Vec::new()), 1)?;
        self.extend_list(items)
    }

    fn extend_list(&mut self, items: Vec<(Value, usize)>) -> Option<()> {
        let Some(Slot::Value(Value::Array(list), depth)) = self.stack.last_mut() else {
            return None;
        };
        for (item, item_depth) in items {
            *depth = (*depth).max(item_depth + 1);
            list.push(item);
        }
        (*depth <= self.deepest).then_some(())
    }

    fn extend_map(&mut self, items: Vec<(Value, usize)>) -> Option<()> {
        let Some(Slot::Value(Value::Object(map), depth)) = self.stack.last_mut() else {
            return None;
        };
        let mut items = items.into_iter();
        while let Some((key, _)) = items.next() {
            let (value, value_depth) = items.next()?;
            *depth = (*depth).max(value_depth + 1);
            map.insert(key.as_str()?.to_owned(), value);
        }
        (*depth <= self.deepest).then_some(())
    }

    fn memoize(&mut self, index: u64) -> Option<()> {
        // Containers are memoized while empty and filled later; a text is what it is.
        let Some(Slot::Value(value, depth)) = self.stack.last() else { return None };
        let is_text = value.is_string();
        let entry =
            if is_text { (index, value.clone(), *depth) } else { (index, Value::Null, usize::MAX) };
        self.memo.push(entry);
        Some(())
    }

    fn recall(&mut self, index: u64) -> Option<()> {
        // Almost always the index is the position.
        let at = usize::try_from(index).ok()?;
        let found = match self.memo.get(at) {
            Some(entry) if entry.0 == index => entry,
            _ => self.memo.iter().rev().find(|entry| entry.0 == index)?,
        };
        let (value, depth) = (found.1.clone(), found.2);
        // A container that is shared is not plain data in our sense.
        let cost = value.as_str().map(|text| text.len() + 1)?;
        self.copies_left = self.copies_left.checked_sub(cost)?;
        self.push(value, depth)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_python_pickles_is_read() {
        // pickle.dumps({"_permanent": True, "user": {"roles": ["User", "User"], "n": -1, "f": 0.5}}, 5)
        let pickled = b"\x80\x05\x95D\x00\x00\x00\x00\x00\x00\x00}\x94(\x8c\n_permanent\x94\x88\x8c\x04user\x94}\x94(\x8c\x05roles\x94]\x94(\x8c\x04User\x94h\x06e\x8c\x01n\x94J\xff\xff\xff\xff\x8c\x01f\x94G?\xe0\x00\x00\x00\x00\x00\x00uu.";
        let expected =
            json!({"_permanent": true, "user": {"roles": ["User", "User"], "n": -1, "f": 0.5}});
        assert_eq!(read(pickled, 64), Some(expected));
    }

    #[test]
    fn a_pickle_that_calls_something_is_not_run() {
        // os.system("true"), protocol 0 and 4
        assert_eq!(read(b"cposix\nsystem\n(S'true'\ntR.", 64), None);
        assert_eq!(read(b"\x80\x04\x8c\x05posix\x94\x8c\x06system\x94\x93\x94\x8c\x04true\x94\x85\x94R\x94.", 64), None);
    }

    #[test]
    fn nesting_is_bounded() {
        let nested =
            |levels: usize| [vec![b']'; levels], vec![b'a'; levels - 1], b".".to_vec()].concat();
        assert!(read(&nested(64), 64).is_some());
        assert_eq!(read(&nested(65), 64), None);
        assert_eq!(read(&nested(1_000_000), 64), None);
    }

    #[test]
    fn odd_pickles_are_refused() {
        for odd in [
            b"".as_slice(),
            b".",
            b"(.",
            b"N",
            b"NN.",
            b"]h\x00.",
            b"}Na.",
            b"\x8a\xff.",
            b"X\xff\xff\xff\xffa.",
        ] {
            assert_eq!(read(odd, 64), None, "{odd:?}");
        }
    }
}
