//! `users`: the columns that a task may set, and what each takes.

use chrono::NaiveTime;
use serde_json::Value;
use tokio_postgres::types::Type;
use uuid::Uuid;

use crate::db::{DbError, Param};
use crate::services::Services;

/// A column of `users` that a task may set. There are no others: the name becomes part of a statement.
pub(in crate::handlers) struct Column {
    name: &'static str,
    kind: Kind,
}

#[derive(Clone, Copy)]
enum Kind {
    Text,
    Flag,
    Texts,
    TimeOfDay,
    Json,
}

/// A value that a column takes; `None` clears it.
#[derive(Debug, PartialEq)]
pub(in crate::handlers) enum Cell {
    Text(Option<String>),
    Flag(Option<bool>),
    Texts(Option<Vec<String>>),
    TimeOfDay(Option<NaiveTime>),
    Json(Option<Value>),
}

const COLUMNS: [Column; 13] = [
    column("email", Kind::Text),
    column("first_name", Kind::Text),
    column("last_name", Kind::Text),
    column("company", Kind::Text),
    column("title", Kind::Text),
    column("linkedin_url", Kind::Text),
    column("verified", Kind::Flag),
    column("expert_connector", Kind::Flag),
    column("expertise", Kind::Texts),
    column("quiet_hours_start", Kind::TimeOfDay),
    column("quiet_hours_end", Kind::TimeOfDay),
    column("timezone", Kind::Text),
    column("response_pattern", Kind::Json),
];

const fn column(name: &'static str, kind: Kind) -> Column {
    Column { name, kind }
}

impl Column {
    pub(in crate::handlers) fn named(name: &str) -> Option<&'static Self> {
        COLUMNS.iter().find(|column| column.name == name)
    }

    /// The value as the column takes it, or what the column wants instead.
    pub(in crate::handlers) fn cell(&self, value: &Value) -> Result<Cell, &'static str> {
        let value = Some(value).filter(|value| !value.is_null());
        Ok(match self.kind {
            Kind::Text => Cell::Text(read(value, text, "a text")?),
            Kind::Flag => Cell::Flag(read(value, Value::as_bool, "true or false")?),
            Kind::Texts => Cell::Texts(read(value, texts, "a list of texts")?),
            Kind::TimeOfDay => Cell::TimeOfDay(read(value, time_of_day, "a time of day such as \"22:30\"")?),
            Kind::Json => Cell::Json(value.cloned()),
        })
    }
}

impl Cell {
    fn param(&self) -> Param<'_> {
        match self {
            Self::Text(value) => (value, Type::TEXT),
            Self::Flag(value) => (value, Type::BOOL),
            Self::Texts(value) => (value, Type::TEXT_ARRAY),
            Self::TimeOfDay(value) => (value, Type::TIME),
            Self::Json(value) => (value, Type::JSONB),
        }
    }
}

/// Sets one column of a user. Answers whether there is such a user. That one address was proven says nothing of another.
pub(in crate::handlers) async fn set(
    services: &Services,
    user_id: Uuid,
    column: &Column,
    cell: &Cell,
) -> Result<bool, DbError> {
    let proof = match column.name {
        "email" => "email_verified = email_verified and email is not distinct from $2,",
        _ => "",
    };
    let sql = format!(
        "update users set {} = $2, {proof} updated_at = clock_timestamp() where id = $1 returning id",
        column.name
    );
    let rows = services.query(&sql, &[(&user_id, Type::UUID), cell.param()]).await?;
    Ok(!rows.is_empty())
}

fn read<T>(
    value: Option<&Value>,
    reader: fn(&Value) -> Option<T>,
    wanted: &'static str,
) -> Result<Option<T>, &'static str> {
    value.map(|value| reader(value).ok_or(wanted)).transpose()
}

fn text(value: &Value) -> Option<String> {
    value.as_str().map(str::to_owned)
}

fn texts(value: &Value) -> Option<Vec<String>> {
    value.as_array()?.iter().map(text).collect()
}

fn time_of_day(value: &Value) -> Option<NaiveTime> {
    const FORMATS: [&str; 3] = ["%H:%M", "%H:%M:%S%.f", "%I:%M %p"];
    let text = value.as_str()?.trim();
    FORMATS.iter().find_map(|format| NaiveTime::parse_from_str(text, format).ok())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn cell(name: &str, value: &Value) -> Result<Cell, &'static str> {
        Column::named(name).unwrap().cell(value)
    }

    #[test]
    fn a_time_of_day_may_be_written_in_three_ways() {
        let expected = Ok(Cell::TimeOfDay(NaiveTime::from_hms_opt(22, 30, 0)));
        for written in ["22:30", "22:30:00", "10:30 PM"] {
            assert_eq!(cell("quiet_hours_start", &json!(written)), expected, "{written}");
        }
    }

    #[test]
    fn a_value_of_the_wrong_type_is_answered_with_what_the_column_wants() {
        for (name, value, wanted) in [
            ("email", json!(5), "a text"),
            ("verified", json!("maybe"), "true or false"),
            ("expertise", json!("x"), "a list of texts"),
            ("expertise", json!(["x", null]), "a list of texts"),
            ("quiet_hours_end", json!("25:99"), "a time of day such as \"22:30\""),
        ] {
            assert_eq!(cell(name, &value), Err(wanted), "{name}");
        }
    }

    #[test]
    fn null_clears_every_column() {
        for column in &COLUMNS {
            let cell = column.cell(&Value::Null).unwrap();
            assert!(format!("{cell:?}").ends_with("(None)"), "{}", column.name);
        }
    }
}
