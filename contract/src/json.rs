//! JSON, read and written by hand.
//!
//! Generated (de)serializers of all arguments and answers took more than a third of the wasm,
//! whose size is what deploying and loading it costs. Here a struct is a list of its fields:
//! the lists in `args` and `answers` name every field of the interface's structs, which does
//! not compile when one is missing.

use por_types::{AccountId, ChannelId, Hash, NodeKey, Side, Signature, Yocto};

/// Objects and lists within each other.
const MAX_DEPTH: u32 = 8;

/// What arguments may be.
#[derive(Debug, PartialEq)]
pub enum Json {
    Null,
    Bool(bool),
    Number(u64),
    Text(String),
    List(Vec<Json>),
    Object(Vec<(String, Json)>),
}

struct Reader<'a> {
    rest: &'a [u8],
}

/// `None` if the bytes are not JSON, or JSON that no argument is (fractions, negative numbers).
pub fn parse(bytes: &[u8]) -> Option<Json> {
    let mut reader = Reader { rest: bytes };
    let value = reader.value(MAX_DEPTH)?;
    reader.peek().is_none().then_some(value)
}

impl Reader<'_> {
    /// The next byte that is not white space.
    fn peek(&mut self) -> Option<u8> {
        while let [b' ' | b'\t' | b'\n' | b'\r', rest @ ..] = self.rest {
            self.rest = rest;
        }
        self.rest.first().copied()
    }

    fn byte(&mut self) -> Option<u8> {
        let (byte, rest) = self.rest.split_first()?;
        self.rest = rest;
        Some(*byte)
    }

    fn expect(&mut self, byte: u8) -> Option<()> {
        (self.peek()? == byte).then(|| self.rest = &self.rest[1..])
    }

    fn word(&mut self, word: &str, value: Json) -> Option<Json> {
        self.rest = self.rest.strip_prefix(word.as_bytes())?;
        Some(value)
    }

    fn value(&mut self, depth: u32) -> Option<Json> {
        match self.peek()? {
            b'n' => self.word("null", Json::Null),
            b't' => self.word("true", Json::Bool(true)),
            b'f' => self.word("false", Json::Bool(false)),
            b'"' => self.text().map(Json::Text),
            b'[' => self.list(depth.checked_sub(1)?),
            b'{' => self.object(depth.checked_sub(1)?),
            _ => self.number(),
        }
    }

    fn number(&mut self) -> Option<Json> {
        let digits = self.rest.iter().take_while(|byte| byte.is_ascii_digit()).count();
        let (number, rest) = self.rest.split_at(digits);
        if digits == 0 || (digits > 1 && number[0] == b'0') {
            return None;
        }
        self.rest = rest;
        let digit = |sum: u64, digit: &u8| sum.checked_mul(10)?.checked_add(u64::from(digit - b'0'));
        number.iter().try_fold(0, digit).map(Json::Number)
    }

    fn text(&mut self) -> Option<String> {
        self.expect(b'"')?;
        let mut text = Vec::new();
        loop {
            match self.byte()? {
                b'"' => return String::from_utf8(text).ok(),
                b'\\' => {
                    let escaped = self.escaped()?;
                    text.extend_from_slice(escaped.encode_utf8(&mut [0; 4]).as_bytes());
                }
                control if control < b' ' => return None,
                byte => text.push(byte),
            }
        }
    }

    fn escaped(&mut self) -> Option<char> {
        Some(match self.byte()? {
            b'n' => '\n',
            b't' => '\t',
            b'r' => '\r',
            b'b' => '\u{8}',
            b'f' => '\u{c}',
            // No name or key of the interface needs a pair of them.
            b'u' => {
                let digits = [self.byte()?, self.byte()?, self.byte()?, self.byte()?];
                let digit = |sum: u32, digit: u8| Some(sum * 16 + char::from(digit).to_digit(16)?);
                char::from_u32(digits.into_iter().try_fold(0, digit)?)?
            }
            same @ (b'"' | b'\\' | b'/') => char::from(same),
            _ => return None,
        })
    }

    fn list(&mut self, depth: u32) -> Option<Json> {
        self.expect(b'[')?;
        let mut list = Vec::new();
        if self.expect(b']').is_some() {
            return Some(Json::List(list));
        }
        loop {
            list.push(self.value(depth)?);
            if self.expect(b',').is_none() {
                self.expect(b']')?;
                return Some(Json::List(list));
            }
        }
    }

    fn object(&mut self, depth: u32) -> Option<Json> {
        self.expect(b'{')?;
        let mut fields = Vec::new();
        if self.expect(b'}').is_some() {
            return Some(Json::Object(fields));
        }
        loop {
            self.peek()?;
            let name = self.text()?;
            self.expect(b':')?;
            fields.push((name, self.value(depth)?));
            if self.expect(b',').is_none() {
                self.expect(b'}')?;
                return Some(Json::Object(fields));
            }
        }
    }
}

/// What answers, events and own callbacks are written as.
pub trait ToJson {
    fn write(&self, out: &mut String);
}

pub fn to_json(value: &dyn ToJson) -> String {
    let mut out = String::new();
    value.write(&mut out);
    out
}

/// Writes an object.
pub fn write_object(out: &mut String, fields: &[(&str, &dyn ToJson)]) {
    out.push('{');
    write_fields(out, fields);
    out.push('}');
}

/// Writes fields without the braces.
pub fn write_fields(out: &mut String, fields: &[(&str, &dyn ToJson)]) {
    for (at, (name, value)) in fields.iter().enumerate() {
        if at > 0 {
            out.push(',');
        }
        write_text(out, name);
        out.push(':');
        value.write(out);
    }
}

fn write_text(out: &mut String, text: &str) {
    out.push('"');
    for char in text.chars() {
        // Nothing the contract writes has control characters: accounts, keys and names of its own.
        if char == '"' || char == '\\' {
            out.push('\\');
        }
        out.push(char);
    }
    out.push('"');
}

fn write_number(out: &mut String, mut number: u128) {
    let mut digits = [0; 39];
    let mut start = digits.len();
    loop {
        start -= 1;
        // A digit, so it fits.
        digits[start] = b'0' + (number % 10) as u8;
        number /= 10;
        if number == 0 {
            break;
        }
    }
    out.extend(digits[start..].iter().map(|digit| char::from(*digit)));
}

impl ToJson for u16 {
    fn write(&self, out: &mut String) {
        write_number(out, u128::from(*self));
    }
}

impl ToJson for u32 {
    fn write(&self, out: &mut String) {
        write_number(out, u128::from(*self));
    }
}

impl ToJson for u64 {
    fn write(&self, out: &mut String) {
        write_number(out, u128::from(*self));
    }
}

impl ToJson for bool {
    fn write(&self, out: &mut String) {
        out.push_str(if *self { "true" } else { "false" });
    }
}

impl ToJson for Yocto {
    fn write(&self, out: &mut String) {
        out.push('"');
        write_number(out, self.0);
        out.push('"');
    }
}

impl ToJson for ChannelId {
    fn write(&self, out: &mut String) {
        self.0.write(out);
    }
}

impl ToJson for &str {
    fn write(&self, out: &mut String) {
        write_text(out, self);
    }
}

impl ToJson for String {
    fn write(&self, out: &mut String) {
        write_text(out, self);
    }
}

impl ToJson for AccountId {
    fn write(&self, out: &mut String) {
        write_text(out, self.as_str());
    }
}

impl ToJson for NodeKey {
    fn write(&self, out: &mut String) {
        write_text(out, &self.to_string());
    }
}

impl ToJson for Signature {
    fn write(&self, out: &mut String) {
        write_text(out, &self.to_string());
    }
}

impl ToJson for Hash {
    fn write(&self, out: &mut String) {
        write_text(out, &self.to_string());
    }
}

impl ToJson for Side {
    fn write(&self, out: &mut String) {
        out.push_str(match self {
            Side::A => "\"a\"",
            Side::B => "\"b\"",
        });
    }
}

impl<T: ToJson> ToJson for Option<T> {
    fn write(&self, out: &mut String) {
        match self {
            Some(value) => value.write(out),
            None => out.push_str("null"),
        }
    }
}

impl<T: ToJson> ToJson for Vec<T> {
    fn write(&self, out: &mut String) {
        out.push('[');
        for (at, value) in self.iter().enumerate() {
            if at > 0 {
                out.push(',');
            }
            value.write(out);
        }
        out.push(']');
    }
}
