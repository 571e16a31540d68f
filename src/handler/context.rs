//! How a task's input is read.

use serde::de::{Deserializer, Error, Unexpected, Visitor};
use serde_json::Value;

/// A task's `context_json`, from which a struct's fields are read by their names: left to itself, serde would take them from
/// an array, too, by their order.
pub(super) struct Context<'a>(pub(super) &'a Value);

impl<'de> Deserializer<'de> for Context<'de> {
    type Error = serde_json::Error;

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Self::Error> {
        match self.0 {
            Value::Array(_) => Err(Error::invalid_type(Unexpected::Seq, &"an object")),
            value => value.deserialize_struct(name, fields, visitor),
        }
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Self::Error> {
        match self.0 {
            Value::Null => visitor.visit_none(),
            _ => visitor.visit_some(self),
        }
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        visitor: V,
    ) -> Result<V::Value, Self::Error> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        name: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Self::Error> {
        self.0.deserialize_enum(name, variants, visitor)
    }

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Self::Error> {
        self.0.deserialize_any(visitor)
    }

    serde::forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf unit unit_struct seq tuple
        tuple_struct map identifier ignored_any
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use serde::Deserialize;
    use serde::de::DeserializeOwned;
    use serde_json::json;

    use super::*;

    #[derive(Debug, Deserialize, PartialEq)]
    struct Named {
        name: Option<String>,
    }

    #[derive(Debug, Deserialize)]
    #[expect(dead_code, reason = "only read")]
    struct Wrapped(Named);

    fn read<T: DeserializeOwned>(context: &Value) -> Result<T, String> {
        serde_path_to_error::deserialize(Context(context)).map_err(|error| error.to_string())
    }

    #[test]
    fn a_struct_is_read_from_an_object_only() {
        let ada = Named { name: Some("Ada".to_owned()) };
        assert_eq!(read(&json!({ "name": "Ada" })), Ok(ada));
        assert_eq!(
            read::<Named>(&json!({ "name": 5 })).unwrap_err(),
            "name: invalid type: integer `5`, expected a string"
        );
        for other in [json!(["Ada"]), json!([]), json!("Ada"), json!(null)] {
            read::<Named>(&other).expect_err("no object");
        }
        read::<Option<Named>>(&json!(["Ada"])).expect_err("no object either");
        read::<Wrapped>(&json!(["Ada"])).expect_err("nor here");
        assert_eq!(read::<Option<Named>>(&json!(null)), Ok(None));
    }

    #[test]
    fn what_is_meant_to_be_an_array_or_anything_is_read_as_ever() {
        #[derive(Debug, Deserialize, PartialEq)]
        enum Step {
            First,
            Second(u8),
        }
        assert_eq!(read(&json!(["a", "b"])), Ok(vec!["a".to_owned(), "b".to_owned()]));
        assert_eq!(read(&json!(["a", 1])), Ok(("a".to_owned(), 1_u8)));
        assert_eq!(read(&json!([[1], {}])), Ok(json!([[1], {}])));
        assert_eq!(read(&json!(["First", { "Second": 2 }])), Ok(vec![Step::First, Step::Second(2)]));
        assert_eq!(read(&json!("First")), Ok(Step::First));
        assert_eq!(read(&json!({ "a": 1 })), Ok(BTreeMap::from([("a".to_owned(), 1_u8)])));
        assert_eq!(read(&json!(null)), Ok(()));
        assert_eq!(read(&json!(-1)), Ok(-1_i64));
    }
}
