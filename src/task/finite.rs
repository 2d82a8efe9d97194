//! A serializer that refuses NaN and infinity, which JSON does not have.
//!
//! `serde_json` writes null for them. An `Option<f64>` that was `Some(NaN)` would arrive as `None`, and a result could
//! not be read by anybody. The serializer here stands between a value and its own serializer and checks each float, at
//! any depth; everything else passes through.

use std::cell::Cell;
use std::fmt::Display;

use serde::ser::{
    Error, Serialize, SerializeMap, SerializeSeq, SerializeStruct, SerializeStructVariant, SerializeTuple,
    SerializeTupleStruct, SerializeTupleVariant, Serializer,
};
use serde_json::Value;

/// A value whose floats all have to be finite.
pub(crate) struct Finite<'a, T: ?Sized>(pub(crate) &'a T);

impl<T: Serialize + ?Sized> Serialize for Finite<'_, T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.0.serialize(Strict(serializer))
    }
}

/// The most bytes of the buffer that each thread keeps for the next text.
const MOST_KEPT: usize = 16 << 10;

thread_local! {
    /// The buffer in which the texts of this thread are written.
    static BUFFER: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
}

/// Writes a value whose floats are all finite as JSON text. A short text takes no more memory than it has bytes, because many of
/// them wait in queues.
pub(crate) fn to_string(value: &(impl Serialize + ?Sized)) -> Result<String, serde_json::Error> {
    // A thread that ends has no buffer, and neither has a value that is written within another one.
    let mut bytes = BUFFER.try_with(Cell::take).unwrap_or_default();
    bytes.clear();
    serde_json::to_writer(&mut bytes, &Finite(value))?;
    if bytes.len() > MOST_KEPT {
        return String::from_utf8(bytes).map_err(serde_json::Error::custom);
    }
    let text = str::from_utf8(&bytes).map(str::to_owned).map_err(serde_json::Error::custom);
    let _ = BUFFER.try_with(|buffer| buffer.set(bytes));
    text
}

/// Converts a value whose floats are all finite to a [`Value`].
pub(crate) fn to_value(value: &(impl Serialize + ?Sized)) -> Result<Value, serde_json::Error> {
    serde_json::to_value(Finite(value))
}

fn refused<E: Error>(float: f64) -> E {
    E::custom(format!(
        "a number in it is {float}, which JSON does not know: send an `Option` that is `None`, or a text"
    ))
}

struct Strict<S>(S);

/// A sequence, map or struct that is being written.
struct CompoundParts<C>(C);

macro_rules! pass {
    ($($method:ident($($value:ident: $type:ty),*);)*) => {$(
        fn $method(self, $($value: $type),*) -> Result<Self::Ok, Self::Error> {
            self.0.$method($($value),*)
        }
    )*};
}

macro_rules! open {
    ($($method:ident($($value:ident: $type:ty),*) -> $compound:ident;)*) => {$(
        fn $method(self, $($value: $type),*) -> Result<Self::$compound, Self::Error> {
            self.0.$method($($value),*).map(CompoundParts)
        }
    )*};
}

impl<S: Serializer> Serializer for Strict<S> {
    type Ok = S::Ok;
    type Error = S::Error;
    type SerializeSeq = CompoundParts<S::SerializeSeq>;
    type SerializeTuple = CompoundParts<S::SerializeTuple>;
    type SerializeTupleStruct = CompoundParts<S::SerializeTupleStruct>;
    type SerializeTupleVariant = CompoundParts<S::SerializeTupleVariant>;
    type SerializeMap = CompoundParts<S::SerializeMap>;
    type SerializeStruct = CompoundParts<S::SerializeStruct>;
    type SerializeStructVariant = CompoundParts<S::SerializeStructVariant>;

    fn serialize_f32(self, value: f32) -> Result<S::Ok, S::Error> {
        if value.is_finite() { self.0.serialize_f32(value) } else { Err(refused(value.into())) }
    }

    fn serialize_f64(self, value: f64) -> Result<S::Ok, S::Error> {
        if value.is_finite() { self.0.serialize_f64(value) } else { Err(refused(value)) }
    }

    pass! {
        serialize_bool(v: bool);
        serialize_i8(v: i8);
        serialize_i16(v: i16);
        serialize_i32(v: i32);
        serialize_i64(v: i64);
        serialize_i128(v: i128);
        serialize_u8(v: u8);
        serialize_u16(v: u16);
        serialize_u32(v: u32);
        serialize_u64(v: u64);
        serialize_u128(v: u128);
        serialize_char(v: char);
        serialize_str(v: &str);
        serialize_bytes(v: &[u8]);
        serialize_none();
        serialize_unit();
        serialize_unit_struct(name: &'static str);
        serialize_unit_variant(name: &'static str, index: u32, variant: &'static str);
    }

    open! {
        serialize_seq(len: Option<usize>) -> SerializeSeq;
        serialize_tuple(len: usize) -> SerializeTuple;
        serialize_tuple_struct(name: &'static str, len: usize) -> SerializeTupleStruct;
        serialize_tuple_variant(name: &'static str, index: u32, variant: &'static str, len: usize) -> SerializeTupleVariant;
        serialize_map(len: Option<usize>) -> SerializeMap;
        serialize_struct(name: &'static str, len: usize) -> SerializeStruct;
        serialize_struct_variant(name: &'static str, index: u32, variant: &'static str, len: usize) -> SerializeStructVariant;
    }

    fn serialize_some<T: Serialize + ?Sized>(self, value: &T) -> Result<S::Ok, S::Error> {
        self.0.serialize_some(&Finite(value))
    }

    fn serialize_newtype_struct<T: Serialize + ?Sized>(
        self,
        name: &'static str,
        value: &T,
    ) -> Result<S::Ok, S::Error> {
        self.0.serialize_newtype_struct(name, &Finite(value))
    }

    fn serialize_newtype_variant<T: Serialize + ?Sized>(
        self,
        name: &'static str,
        index: u32,
        variant: &'static str,
        value: &T,
    ) -> Result<S::Ok, S::Error> {
        self.0.serialize_newtype_variant(name, index, variant, &Finite(value))
    }

    fn collect_str<T: Display + ?Sized>(self, value: &T) -> Result<S::Ok, S::Error> {
        self.0.collect_str(value)
    }

    fn is_human_readable(&self) -> bool {
        self.0.is_human_readable()
    }
}

macro_rules! listed {
    ($($trait:ident: $method:ident;)*) => {$(
        impl<C: $trait> $trait for CompoundParts<C> {
            type Ok = C::Ok;
            type Error = C::Error;

            fn $method<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), C::Error> {
                self.0.$method(&Finite(value))
            }

            fn end(self) -> Result<C::Ok, C::Error> {
                self.0.end()
            }
        }
    )*};
}

listed! {
    SerializeSeq: serialize_element;
    SerializeTuple: serialize_element;
    SerializeTupleStruct: serialize_field;
    SerializeTupleVariant: serialize_field;
}

macro_rules! named {
    ($($trait:ident;)*) => {$(
        impl<C: $trait> $trait for CompoundParts<C> {
            type Ok = C::Ok;
            type Error = C::Error;

            fn serialize_field<T: Serialize + ?Sized>(&mut self, key: &'static str, value: &T) -> Result<(), C::Error> {
                self.0.serialize_field(key, &Finite(value))
            }

            fn skip_field(&mut self, key: &'static str) -> Result<(), C::Error> {
                self.0.skip_field(key)
            }

            fn end(self) -> Result<C::Ok, C::Error> {
                self.0.end()
            }
        }
    )*};
}

named! {
    SerializeStruct;
    SerializeStructVariant;
}

impl<C: SerializeMap> SerializeMap for CompoundParts<C> {
    type Ok = C::Ok;
    type Error = C::Error;

    fn serialize_key<T: Serialize + ?Sized>(&mut self, key: &T) -> Result<(), C::Error> {
        self.0.serialize_key(&Finite(key))
    }

    fn serialize_value<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), C::Error> {
        self.0.serialize_value(&Finite(value))
    }

    fn end(self) -> Result<C::Ok, C::Error> {
        self.0.end()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use serde::Serialize;
    use serde_json::value::RawValue;

    use super::*;

    #[derive(Serialize)]
    struct Unit;
    #[derive(Serialize)]
    struct Newtype<T>(T);
    #[derive(Serialize)]
    struct Pair<T>(u8, T);
    #[derive(Serialize)]
    struct Named<T> {
        a: u8,
        #[serde(skip_serializing_if = "Option::is_none")]
        none: Option<u8>,
        #[serde(flatten)]
        more: BTreeMap<&'static str, T>,
    }
    #[derive(Serialize)]
    enum Kinds<T> {
        Unit,
        Newtype(T),
        Tuple(u8, T),
        Struct { a: T },
    }
    #[derive(Serialize)]
    #[serde(tag = "type")]
    enum Tagged<T> {
        Struct { a: T },
    }
    #[derive(Serialize)]
    #[serde(untagged)]
    enum Untagged<T> {
        One(T),
    }

    fn everywhere<T: Serialize + Copy>(value: T) -> Vec<Result<String, serde_json::Error>> {
        let more = || BTreeMap::from([("m", value)]);
        vec![
            to_string(&value),
            to_string(&(1, value)),
            to_string(&[vec![value]]),
            to_string(&Some(Some(value))),
            to_string(&Newtype(Pair(1, value))),
            to_string(&Named { a: 1, none: None, more: more() }),
            to_string(&Kinds::Newtype(value)),
            to_string(&Kinds::Tuple(1, value)),
            to_string(&Kinds::Struct { a: value }),
            to_string(&Tagged::Struct { a: value }),
            to_string(&Untagged::One(value)),
            to_string(&BTreeMap::from([(1, more())])),
            to_string(&Box::new(std::cell::Cell::new(value))),
        ]
    }

    #[test]
    fn what_is_not_finite_is_refused_wherever_it_is() {
        for float in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY] {
            for (i, refused) in everywhere(float).into_iter().enumerate() {
                let error = refused.unwrap_err().to_string();
                assert!(error.starts_with(&format!("a number in it is {float},")), "{i}: {error}");
            }
        }
        for refused in everywhere(f32::NAN).into_iter().chain(everywhere(f32::INFINITY)) {
            assert!(refused.is_err());
        }
    }

    #[test]
    fn a_text_takes_no_more_room_than_it_needs() {
        /// Writes its own text as JSON within a text.
        struct Within;

        impl Serialize for Within {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                let inner = to_string(&[1, 2]).map_err(S::Error::custom)?;
                serializer.serialize_str(&inner)
            }
        }

        for _ in 0..2 {
            assert_eq!(to_string(&("before", Within, "after")).unwrap(), r#"["before","[1,2]","after"]"#);
            assert!(to_string(&("half of it", f64::NAN)).is_err());
            let short = to_string(&("ü", vec![0; 100])).unwrap();
            assert_eq!((short.len(), short.capacity()), (208, 208));
            let long = "x".repeat(MOST_KEPT);
            assert_eq!(to_string(&long).unwrap(), format!("\"{long}\""));
        }
    }

    #[test]
    fn all_else_is_written_as_ever() {
        let raw = RawValue::from_string("{\"z\": 1e400}".into()).unwrap();
        assert_eq!(to_string(&(&raw, Unit, (), 'c', u128::MAX, i128::MIN)).unwrap(), {
            serde_json::to_string(&(&raw, Unit, (), 'c', u128::MAX, i128::MIN)).unwrap()
        });
        let finite = everywhere(0.1_f32);
        assert_eq!(finite[0].as_ref().unwrap(), "0.1");
        assert_eq!(finite[5].as_ref().unwrap(), r#"{"a":1,"m":0.1}"#);
        assert_eq!(to_string(&Kinds::<u8>::Unit).unwrap(), "\"Unit\"");
        assert_eq!(to_string(&serde_json::json!({"a": [1.5, null]})).unwrap(), r#"{"a":[1.5,null]}"#);
        let error = to_string(&BTreeMap::from([((1, 2), 3)])).unwrap_err().to_string();
        assert_eq!(error, "key must be a string");
    }
}
