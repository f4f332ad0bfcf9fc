//! The tables: what they are, who makes them, and what a role needs that only uses them.

use tokio_postgres::Client;
use tokio_postgres::error::SqlState;

use super::error::PostgresError;

/// The version of the tables that this program works with. A later version may work with an older one as well.
const VERSION: &[u8] = b"1";

/// The statements that make the tables. Where those are there, they lock and change none of them.
pub const SCHEMA: &str = include_str!("schema.sql");

/// What a role needs that uses the tables and owns none of them.
pub fn grants(role: &str) -> String {
    let role = format!("\"{}\"", role.replace('"', "\"\""));
    format!(
        "GRANT USAGE ON SCHEMA onlyonce TO {role};\n\
         GRANT SELECT, INSERT, UPDATE, DELETE ON onlyonce.records, onlyonce.waiters TO {role};\n\
         GRANT SELECT, INSERT ON onlyonce.bodies TO {role};\n\
         GRANT SELECT, INSERT, UPDATE ON onlyonce.notes TO {role};\n\
         GRANT EXECUTE ON FUNCTION onlyonce.make_partition(timestamptz), onlyonce.drop_partition() TO {role};\n"
    )
}

/// What there is of the tables.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Tables {
    /// All, of the version that this program works with.
    There,
    /// None, and this role may make them.
    ToBeMade,
    /// None, and this role may not make them.
    Missing,
}

/// Looks for the tables.
pub(super) async fn look(client: &Client) -> Result<Tables, PostgresError> {
    const HAVE: &str = "SELECT to_regclass('onlyonce.notes') IS NOT NULL,
                               CASE WHEN to_regnamespace('onlyonce') IS NULL
                                    THEN has_database_privilege(current_database(), 'CREATE')
                                    ELSE has_schema_privilege('onlyonce', 'CREATE') END";
    let row = match client.query_one(HAVE, &[]).await {
        Ok(row) => row,
        // Names in a schema that may not be used are as good as none, if not told so.
        Err(error) if error.code() == Some(&SqlState::INSUFFICIENT_PRIVILEGE) => {
            return Err(PostgresError::Rights(vec!["USAGE on the schema onlyonce".to_owned()]));
        }
        Err(error) => return Err(PostgresError::of(error)),
    };
    if !row.get::<_, bool>(0) {
        return Ok(if row.get(1) { Tables::ToBeMade } else { Tables::Missing });
    }
    const VERSION_NOTE: &str = "SELECT value FROM onlyonce.notes WHERE name = 'schema'";
    let found = match client.query_opt(VERSION_NOTE, &[]).await {
        Ok(found) => found.map(|row| row.get::<_, Vec<u8>>(0)),
        Err(error) if error.code() == Some(&SqlState::INSUFFICIENT_PRIVILEGE) => {
            return Err(PostgresError::Rights(vec!["SELECT on onlyonce.notes".to_owned()]));
        }
        Err(error) => return Err(PostgresError::of(error)),
    };
    match found {
        Some(version) if version == VERSION => Ok(Tables::There),
        found => Err(PostgresError::OtherTables(
            found.map_or_else(|| "none".to_owned(), |found| String::from_utf8_lossy(&found).into_owned()),
        )),
    }
}

/// Makes the tables, as one transaction.
pub(super) async fn make(client: &Client) -> Result<(), PostgresError> {
    client.batch_execute(SCHEMA).await.map_err(PostgresError::of)
}

/// The rights that this role lacks.
pub(super) async fn missing_rights(client: &Client) -> Result<Vec<String>, PostgresError> {
    const LACKS: &str = "SELECT right_name || ' on ' || object FROM (
          SELECT right_name, 'onlyonce.' || table_name AS object, has_table_privilege('onlyonce.' || table_name, right_name) AS has
          FROM (VALUES ('records', 'SELECT'), ('records', 'INSERT'), ('records', 'UPDATE'), ('records', 'DELETE'),
                       ('waiters', 'SELECT'), ('waiters', 'INSERT'), ('waiters', 'UPDATE'), ('waiters', 'DELETE'),
                       ('bodies', 'SELECT'), ('bodies', 'INSERT'),
                       ('notes', 'SELECT'), ('notes', 'INSERT'), ('notes', 'UPDATE')) AS t (table_name, right_name)
          UNION ALL
          SELECT 'EXECUTE', function, has_function_privilege(function, 'EXECUTE')
          FROM (VALUES ('onlyonce.make_partition(timestamptz)'), ('onlyonce.drop_partition()')) AS f (function)
          UNION ALL
          SELECT 'EXECUTE', 'pg_logical_emit_message', coalesce(bool_and(has_function_privilege(oid, 'EXECUTE')), false)
          FROM pg_proc WHERE proname = 'pg_logical_emit_message' AND pronamespace = 'pg_catalog'::regnamespace
        ) AS rights WHERE NOT has";
    let rows = client.query(LACKS, &[]).await.map_err(PostgresError::of)?;
    Ok(rows.iter().map(|row| row.get(0)).collect())
}
