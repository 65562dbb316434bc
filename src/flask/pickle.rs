//! Reader of the pickles that cachelib writes: plain data.
//!
//! A pickle is a program for a stack machine, and unpickling runs it. This machine implements the opcodes of
//! Python's `pickletools`, protocols 2 to 5, and builds plain data only. It never looks up, calls or constructs
//! anything: such values become null.

use std::collections::HashMap;

use serde_json::{Map, Number, Value};

/// Maximum size of a pickle in bytes, and of the text in the value it builds.
const MAX_SIZE: usize = 4 * 1024 * 1024;
/// Maximum of values on the stack, in the memo, made, and in the value that is built.
const MAX_VALUES: usize = 256 * 1024;

/// Index of a value in [`Machine::made`].
type Place = usize;

/// A slot of the stack.
#[derive(Clone, Copy)]
enum Slot {
    Mark,
    Value(Place),
}

/// A value made by the program. Containers refer to items by index: several may share one.
enum Made {
    Plain(Value),
    List(Vec<Place>),
    Map(Vec<(Place, Place)>),
    /// A class or an object of a class: null, whatever the program does with it.
    Unknown,
}

struct Machine<'a> {
    rest: &'a [u8],
    made: Vec<Made>,
    stack: Vec<Slot>,
    memo: HashMap<u64, Place>,
}

/// Value that a pickle builds, with null for everything that is not plain data, and without members whose names
/// are not strings. `None` when it is malformed, nests deeper than `max_depth`, or has or builds more than 4 MiB.
pub(super) fn read(pickle: &[u8], max_depth: usize) -> Option<Value> {
    if pickle.len() > MAX_SIZE {
        return None;
    }
    let (made, stack, memo) = (Vec::new(), Vec::new(), HashMap::new());
    let mut machine = Machine { rest: pickle, made, stack, memo };
    while machine.step()? {}
    match machine.stack[..] {
        [Slot::Value(place)] => {
            let (values, text) = (MAX_VALUES, MAX_SIZE);
            ValueBuilder { made: &machine.made, values, text }.build(place, max_depth)
        }
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
            // MARK, POP, POP_MARK, DUP
            b'(' => self.push(Slot::Mark)?,
            b'0' => drop(self.stack.pop()?),
            b'1' => drop(self.pop_to_mark()?),
            b'2' => {
                let top = self.top()?;
                self.push(Slot::Value(top))?;
            }
            b'N' => self.make_plain(Value::Null)?,
            0x88 => self.make_plain(Value::Bool(true))?,
            0x89 => self.make_plain(Value::Bool(false))?,
            // BININT1, BININT2, BININT, LONG1, LONG4
            b'K' => self.make_number(1, false)?,
            b'M' => self.make_number(2, false)?,
            b'J' => self.make_number(4, true)?,
            0x8a => {
                let length = self.length(1)?;
                self.make_number(length, true)?;
            }
            0x8b => {
                let length = self.length(4)?;
                self.make_number(length, true)?;
            }
            // BINFLOAT: JSON has no infinity.
            b'G' => {
                let float = f64::from_be_bytes(self.take(8)?.try_into().ok()?);
                self.make_plain(Number::from_f64(float).map_or(Value::Null, Value::Number))?;
            }
            // SHORT_BINUNICODE, BINUNICODE, BINUNICODE8
            0x8c => self.make_text(1)?,
            b'X' => self.make_text(4)?,
            0x8d => self.make_text(8)?,
            // SHORT_BINBYTES, BINBYTES, BINBYTES8, BYTEARRAY8, SHORT_BINSTRING, BINSTRING
            b'C' | b'U' => self.make_bytes(1)?,
            b'B' | b'T' => self.make_bytes(4)?,
            0x8e | 0x96 => self.make_bytes(8)?,
            opcode => return self.run_container_or_object(opcode),
        }
        Some(true)
    }

    /// Runs an opcode of containers, the memo, or objects.
    fn run_container_or_object(&mut self, opcode: u8) -> Option<bool> {
        match opcode {
            // EMPTY_DICT, EMPTY_LIST, EMPTY_TUPLE, EMPTY_SET
            b'}' => self.make(Made::Map(Vec::new()))?,
            b']' | b')' | 0x8f => self.make(Made::List(Vec::new()))?,
            // APPEND, APPENDS and ADDITEMS
            b'a' => {
                let item = self.pop()?;
                self.extend_list(vec![item])?;
            }
            b'e' | 0x90 => {
                let items = self.pop_to_mark()?;
                self.extend_list(items)?;
            }
            // SETITEM, SETITEMS
            b's' => {
                let (value, key) = (self.pop()?, self.pop()?);
                self.extend_map(&[key, value])?;
            }
            b'u' => {
                let items = self.pop_to_mark()?;
                self.extend_map(&items)?;
            }
            // TUPLE1, TUPLE2, TUPLE3
            0x85..=0x87 => {
                let length = usize::from(opcode - 0x84);
                let mut items = Vec::with_capacity(length);
                for _ in 0..length {
                    items.push(self.pop()?);
                }
                items.reverse();
                self.make(Made::List(items))?;
            }
            // TUPLE, FROZENSET
            b't' | 0x91 => {
                let items = self.pop_to_mark()?;
                self.make(Made::List(items))?;
            }
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
            // GLOBAL: a module and a name, each to the end of its line
            b'c' => {
                self.line()?;
                self.line()?;
                self.make(Made::Unknown)?;
            }
            // EXT1, EXT2, EXT4: classes by number
            0x82..=0x84 => {
                self.take(1 << (opcode - 0x82))?;
                self.make(Made::Unknown)?;
            }
            // STACK_GLOBAL; BINPERSID
            0x93 => {
                let (_name, _module) = (self.pop()?, self.pop()?);
                self.make(Made::Unknown)?;
            }
            b'Q' => {
                self.pop()?;
                self.make(Made::Unknown)?;
            }
            // REDUCE and NEWOBJ; NEWOBJ_EX, which has named arguments as well
            b'R' | 0x81 => self.construct(1)?,
            0x92 => self.construct(2)?,
            // BUILD: drops the state, keeps the object
            b'b' => {
                self.pop()?;
                let object = self.top()?;
                matches!(self.made.get(object)?, Made::Unknown).then_some(())?;
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

    fn line(&mut self) -> Option<()> {
        let length = self.rest.iter().position(|byte| *byte == b'\n')?;
        self.take(length + 1).map(drop)
    }

    /// Little-endian, unsigned, of up to 8 bytes.
    fn number(&mut self, length: usize) -> Option<u64> {
        let mut bytes = [0; 8];
        bytes.get_mut(..length)?.copy_from_slice(self.take(length)?);
        Some(u64::from_le_bytes(bytes))
    }

    fn length(&mut self, length_bytes: usize) -> Option<usize> {
        usize::try_from(self.number(length_bytes)?).ok()
    }

    /// A number beyond 64 bits is null.
    fn make_number(&mut self, length: usize, signed: bool) -> Option<()> {
        let taken = self.take(length)?;
        let is_negative = signed && taken.last().is_some_and(|last| last & 0x80 != 0);
        let mut bytes = [if is_negative { 0xff } else { 0 }; 16];
        let number = match bytes.get_mut(..length) {
            Some(low) => {
                low.copy_from_slice(taken);
                let number = i128::from_le_bytes(bytes);
                let signed = i64::try_from(number).map(Number::from);
                signed.or_else(|_| u64::try_from(number).map(Number::from)).ok()
            }
            None => None,
        };
        self.make_plain(number.map_or(Value::Null, Value::Number))
    }

    fn make_text(&mut self, length_bytes: usize) -> Option<()> {
        let length = self.length(length_bytes)?;
        // Python encodes a lone surrogate like a character; JSON has no such string.
        let text = String::from_utf8(self.take(length)?.to_vec());
        self.make_plain(text.map_or(Value::Null, Value::String))
    }

    fn make_bytes(&mut self, length_bytes: usize) -> Option<()> {
        let length = self.length(length_bytes)?;
        self.take(length)?;
        self.make_plain(Value::Null)
    }

    fn make_plain(&mut self, value: Value) -> Option<()> {
        self.make(Made::Plain(value))
    }

    fn make(&mut self, made: Made) -> Option<()> {
        let place = self.made.len();
        self.made.push(made);
        self.push(Slot::Value(place))?;
        (place < MAX_VALUES).then_some(())
    }

    /// Replaces a callable and its arguments by null.
    fn construct(&mut self, arguments: usize) -> Option<()> {
        for _ in 0..arguments {
            self.pop()?;
        }
        let called = self.pop()?;
        matches!(self.made.get(called)?, Made::Unknown).then_some(())?;
        self.make(Made::Unknown)
    }

    fn push(&mut self, slot: Slot) -> Option<()> {
        self.stack.push(slot);
        (self.stack.len() <= MAX_VALUES).then_some(())
    }

    fn pop(&mut self) -> Option<Place> {
        match self.stack.pop()? {
            Slot::Value(place) => Some(place),
            Slot::Mark => None,
        }
    }

    fn top(&self) -> Option<Place> {
        match self.stack.last()? {
            Slot::Value(place) => Some(*place),
            Slot::Mark => None,
        }
    }

    fn pop_to_mark(&mut self) -> Option<Vec<Place>> {
        let mark = self.stack.iter().rposition(|slot| matches!(slot, Slot::Mark))?;
        let items = self.stack.split_off(mark + 1);
        self.stack.pop();
        let place = |slot| match slot {
            Slot::Value(place) => Some(place),
            Slot::Mark => None,
        };
        items.into_iter().map(place).collect()
    }

    fn extend_list(&mut self, items: Vec<Place>) -> Option<()> {
        let list = self.top()?;
        match self.made.get_mut(list)? {
            Made::List(list) => list.extend(items),
            Made::Unknown => {}
            Made::Plain(_) | Made::Map(_) => return None,
        }
        Some(())
    }

    fn extend_map(&mut self, items: &[Place]) -> Option<()> {
        let (pairs, []) = items.as_chunks() else { return None };
        let map = self.top()?;
        match self.made.get_mut(map)? {
            Made::Map(map) => map.extend(pairs.iter().map(|[key, value]| (*key, *value))),
            Made::Unknown => {}
            Made::Plain(_) | Made::List(_) => return None,
        }
        Some(())
    }

    fn memoize(&mut self, index: u64) -> Option<()> {
        let top = self.top()?;
        self.memo.insert(index, top);
        (self.memo.len() <= MAX_VALUES).then_some(())
    }

    fn recall(&mut self, index: u64) -> Option<()> {
        let place = *self.memo.get(&index)?;
        self.push(Slot::Value(place))
    }
}

/// Builds one value. A value that several containers share is copied into each: the copies count, and a container
/// that contains itself exceeds the depth.
struct ValueBuilder<'a> {
    made: &'a [Made],
    /// Values that may still be built.
    values: usize,
    /// Bytes of text that may still be built.
    text: usize,
}

impl ValueBuilder<'_> {
    /// `levels`: remaining depth.
    fn build(&mut self, place: Place, levels: usize) -> Option<Value> {
        self.values = self.values.checked_sub(1)?;
        Some(match self.made.get(place)? {
            Made::Unknown => Value::Null,
            Made::Plain(value) => {
                self.text = self.text.checked_sub(value.as_str().map_or(0, str::len))?;
                value.clone()
            }
            Made::List(items) => {
                let levels = levels.checked_sub(1)?;
                let items = items.iter().map(|item| self.build(*item, levels));
                Value::Array(items.collect::<Option<_>>()?)
            }
            Made::Map(members) => {
                let levels = levels.checked_sub(1)?;
                let mut map = Map::new();
                for (name, value) in members {
                    let value = self.build(*value, levels)?;
                    if let Made::Plain(Value::String(name)) = self.made.get(*name)? {
                        self.text = self.text.checked_sub(name.len())?;
                        map.insert(name.clone(), value);
                    }
                }
                Value::Object(map)
            }
        })
    }
}

#[cfg(test)]
mod tests;
