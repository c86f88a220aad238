//! The rules that a target has to meet, and making one.

use pgrx::pg_sys;

use super::request::{Request, Storage};
use super::source::{Source, is_unique};
use crate::catalog::identifier;
use crate::client;
use crate::current_model;
use crate::error::Error;
use crate::owned::{Column, LOOK, Table, check_one_owner, check_same_type, columns, find, literal, notice};
use crate::refusal::{Reason, refuse};
use crate::spi::{Argument, Spi};
use crate::watch::extension_schema::ExtensionSchema;
use crate::watch::role::{act_as, read_as};

pub(super) struct Target {
    pub(super) table: Table,
    /// The column that takes the project, where it is carried over.
    pub(super) project: Option<String>,
    model: String,
}

/// The target that the request names, in the source's schema unless it names another.
pub(super) fn find_or_make(
    spi: &Spi,
    extension: &ExtensionSchema,
    source: &Source,
    request: &Request,
) -> Result<Target, Error> {
    let name = Name::read(spi, source, &request.target)?;
    let model = request.model.clone();
    match name.look_up(spi, source)? {
        Some(table) => {
            let table = Table::of_caller(table, LOOK)?;
            let project = check(spi, extension, source, &table, request)?;
            Ok(Target { table, project, model })
        }
        None => {
            let project = request.target_project.clone().unwrap_or_else(|| "project".to_owned());
            let made = make(spi, extension, source, &name, request, &project)?;
            // Its schema may have been renamed meanwhile.
            let table = Table::of_caller(made.oid, LOOK)?;
            check(spi, extension, source, &table, request)?;
            let project = source.project.as_ref().map(|_| project);
            Ok(Target { table, project, model })
        }
    }
}

impl Target {
    /// The model whose vectors the target holds; refused where it holds those of two.
    pub(super) fn held(&self, spi: &Spi) -> Result<Option<String>, Error> {
        let (name, model) = (&self.table.name, identifier(&self.model));
        let query = format!("SELECT min({model}), max({model}) FROM {}", self.table.rows());
        let (one, other) = read_as(self.table.owner, || {
            let row = spi.run(&query, &[])?;
            Ok::<_, Error>((row.printed(1), row.printed(2)))
        })?;
        match (&one, &other) {
            (Some(one), Some(other)) if one != other => Err(refuse(
                Reason::NotReady,
                format!("table {name} holds vectors of model {one} and of model {other}"),
            )
            .with_hint("Delete the vectors of one of them.")),
            _ => Ok(one),
        }
    }
}

/// A schema's and a table's name, as the catalogs have them.
struct Name {
    schema: String,
    table: String,
}

impl Name {
    fn read(spi: &Spi, source: &Source, text: &str) -> Result<Name, Error> {
        const PARTS: &str =
            "SELECT part FROM unnest(parse_ident($1)) WITH ORDINALITY AS t (part, place) ORDER BY place";
        let argument = Argument::text(text);
        let parts: Vec<String> = act_as(source.table.owner, || {
            Ok::<_, Error>(spi.run(PARTS, &[argument])?.all_printed(1).into_iter().flatten().collect())
        })?;
        match parts.as_slice() {
            [table] => Ok(Name { schema: schema_of(&source.table), table: table.clone() }),
            [schema, table] => Ok(Name { schema: schema.clone(), table: table.clone() }),
            _ => Err(refuse(Reason::InvalidName, format!("\"{text}\" is not the name of a table"))),
        }
    }

    fn quoted(&self) -> String {
        format!("{}.{}", identifier(&self.schema), identifier(&self.table))
    }

    fn look_up(&self, spi: &Spi, source: &Source) -> Result<Option<pg_sys::Oid>, Error> {
        let argument = Argument::text(&self.quoted());
        let text = act_as(source.table.owner, || {
            Ok::<_, Error>(spi.run("SELECT to_regclass($1)::oid", &[argument])?.printed(1))
        })?;
        Ok(text.and_then(|oid| oid.parse::<u32>().ok()).map(pg_sys::Oid::from))
    }
}

/// Makes a target that belongs to the source's owner.
fn make(
    spi: &Spi,
    extension: &ExtensionSchema,
    source: &Source,
    name: &Name,
    request: &Request,
    project: &str,
) -> Result<Table, Error> {
    if source.table.is_temporary() {
        let message = format!("table {} is temporary, and its target does not exist", source.table.name);
        return Err(refuse(Reason::NotSupported, message).with_hint(
            "Create a temporary table for the embeddings first, and name it with target => 'pg_temp....'.",
        ));
    }
    check_may_create(spi, source, name)?;
    let dimensions = client::describe(&current_model::model()?)?.dimensions;
    let quoted = name.quoted();
    let storage = request.storage.unwrap_or(Storage::Vector);
    let vector = vector_type(spi, extension, storage)?;
    let key_type = declaration(spi, &source.key)?;
    let project_type = match &source.project {
        Some(project) => declaration(spi, project)?,
        None => "text".to_owned(),
    };
    let column = |name: &str| identifier(name);
    let owner = source.table.owner;
    act_as(owner, || {
        let mut statements = vec![
            format!(
                "CREATE TABLE {quoted} (
                    id uuid PRIMARY KEY DEFAULT gen_random_uuid(),
                    {} {key_type} NOT NULL UNIQUE,
                    {} {}({dimensions}) NOT NULL,
                    {} bytea NOT NULL,
                    {} {project_type},
                    {} text NOT NULL,
                    created_at timestamptz NOT NULL DEFAULT now())",
                column(&request.target_key),
                column(&request.embedding),
                vector.name,
                column(&request.checksum),
                column(project),
                column(&request.model),
            ),
            format!(
                "CREATE INDEX ON {quoted} USING hnsw ({} {}.{}_cosine_ops)",
                column(&request.embedding),
                vector.schema,
                storage.name()
            ),
            format!("CREATE INDEX ON {quoted} ({})", column(&request.checksum)),
            format!(
                "COMMENT ON TABLE {quoted} IS {}",
                literal(&format!("embeddings of the photos in {}, kept by clip_watch", source.table.name))
            ),
        ];
        if storage.fits_a_row(dimensions) {
            // A row that is larger than 2 kB would have its other columns moved out of it.
            statements.push(format!(
                "ALTER TABLE {quoted} ALTER COLUMN {} SET STORAGE PLAIN, SET (toast_tuple_target = 8160)",
                column(&request.embedding)
            ));
        }
        if source.project.is_some() {
            statements.push(format!("CREATE INDEX ON {quoted} ({})", column(project)));
        }
        statements.iter().try_for_each(|statement| spi.run(statement, &[]).map(|_| ()))
    })?;
    let table = name.look_up(spi, source)?.and_then(|table| Table::lock(table, LOOK));
    table.ok_or_else(|| refuse(Reason::UndefinedTable, format!("table {quoted} does not exist")))
}

/// The type of a column, with a collation that is not its type's own.
fn declaration(spi: &Spi, column: &Column) -> Result<String, Error> {
    const COLLATION: &str = "
        SELECT pg_catalog.format(' COLLATE %I.%I', nspname, collname) FROM pg_catalog.pg_collation
        JOIN pg_catalog.pg_namespace ON pg_namespace.oid OPERATOR(pg_catalog.=) collnamespace
        WHERE pg_collation.oid OPERATOR(pg_catalog.=) $1
            AND pg_collation.oid OPERATOR(pg_catalog.<>) (
                SELECT typcollation FROM pg_catalog.pg_type WHERE pg_type.oid OPERATOR(pg_catalog.=) $2)";
    let row = spi.run_now(COLLATION, &[Argument::oid(column.collation), Argument::oid(column.type_oid)])?;
    let collation = if row.len() > 0 { row.printed(1) } else { None };
    Ok(column.declaration.clone() + &collation.unwrap_or_default())
}

/// pgvector's type, and the schema that it and its operator classes are in. Both quoted.
struct VectorType {
    name: String,
    schema: String,
}

fn vector_type(spi: &Spi, extension: &ExtensionSchema, storage: Storage) -> Result<VectorType, Error> {
    const TYPE: &str = "
        SELECT pg_catalog.format('%I.%I', nspname, typname), pg_catalog.format('%I', nspname) FROM pg_catalog.pg_type
        JOIN pg_catalog.pg_namespace ON pg_namespace.oid OPERATOR(pg_catalog.=) typnamespace
        WHERE pg_type.oid OPERATOR(pg_catalog.=) $1";
    let row = spi.run_now(TYPE, &[Argument::oid(storage.type_oid(extension))])?;
    if row.len() == 0 {
        return Err(refuse(Reason::NotSupported, format!("pgvector has no type {} here", storage.name()))
            .with_hint("ALTER EXTENSION vector UPDATE, once version 0.7 or later is installed."));
    }
    let text = |column| if row.len() > 0 { row.printed(column).unwrap_or_default() } else { String::new() };
    Ok(VectorType { name: text(1), schema: text(2) })
}

/// Refuses, naming the owner, a table that CREATE TABLE as the owner would refuse without a name.
fn check_may_create(spi: &Spi, source: &Source, name: &Name) -> Result<(), Error> {
    const MAY_CREATE: &str = "
        SELECT pg_catalog.has_schema_privilege($1, pg_namespace.oid, 'CREATE'),
            pg_catalog.quote_ident(pg_catalog.pg_get_userbyid($1))
        FROM pg_catalog.pg_namespace WHERE nspname OPERATOR(pg_catalog.=) $2";
    let schema = Argument::text(&name.schema);
    let row = spi.run_now(MAY_CREATE, &[Argument::oid(source.table.owner), schema])?;
    if row.len() == 0 || row.printed(1).as_deref() == Some("t") {
        return Ok(());
    }
    let (owner, schema) = (row.printed(2).unwrap_or_default(), identifier(&name.schema));
    Err(refuse(Reason::NotAllowed, format!("permission denied for schema {schema}"))
        .with_detail(format!("The target is made as the owner of table {}, role {owner}.", source.table.name))
        .with_hint(format!(
            "GRANT CREATE ON SCHEMA {schema} TO {owner}, or create the target for that role."
        )))
}

/// Refuses a target that photos cannot be embedded into. Returns the column that takes the project.
fn check(
    spi: &Spi,
    extension: &ExtensionSchema,
    source: &Source,
    target: &Table,
    request: &Request,
) -> Result<Option<String>, Error> {
    if target.oid == source.table.oid {
        let message = format!("table {} cannot take the embeddings of its own photos", target.name);
        return Err(refuse(Reason::InvalidParameter, message)
            .with_hint("Name another table with target => '...'; clip_watch makes it where it is missing."));
    }
    check_one_owner(spi, &source.table, target)?;
    check_free(spi, extension, source, target)?;
    if target.is_temporary() && !source.table.is_temporary() {
        let message = format!("table {} is temporary, and table {} is not", target.name, source.table.name);
        return Err(refuse(Reason::NotSupported, message));
    }
    let columns = columns(spi, target)?;
    let named = |wanted: &str| columns.iter().find(|column| column.name == wanted);
    let wanted = [
        (&request.target_key, None, ""),
        (&request.embedding, Some(extension.vector_type), " vector"),
        (&request.checksum, Some(pg_sys::BYTEAOID), " bytea"),
        (&request.model, Some(pg_sys::TEXTOID), " text"),
    ];
    let is_right = |found: pg_sys::Oid, wanted: pg_sys::Oid| {
        found == wanted || wanted == extension.vector_type && extension.is_of_vectors(found)
    };
    let is_there = |name: &str, type_oid: Option<pg_sys::Oid>| {
        named(name).is_some_and(|column| type_oid.is_none_or(|wanted| is_right(column.type_oid, wanted)))
    };
    let missing: Vec<String> = wanted
        .iter()
        .filter(|(name, type_oid, _)| !is_there(name, *type_oid))
        .map(|(name, _, type_name)| format!("{name}{type_name}"))
        .collect();
    if !missing.is_empty() {
        let message = format!("table {} lacks columns that clip_watch fills", target.name);
        return Err(refuse(Reason::UndefinedColumn, message)
            .with_detail(format!("Missing: {}.", missing.join(", ")))
            .with_hint("Add them, or name the columns that stand for them, as embedding_column => '...'."));
    }
    let key = find(target, &columns, request.target_key.clone())?;
    check_same_type(&source.table, &source.key, target, key)?;
    if !is_unique(target, key, true) {
        return Err(refuse(
            Reason::NotReady,
            format!("column \"{}\" of table {} is not unique", key.name, target.name),
        )
        .with_hint(format!("CREATE UNIQUE INDEX ON {} ({})", target.name, identifier(&key.name))));
    }
    check_storage(extension, target, &columns, request)?;
    let project = check_project(source, target, &columns, request)?;
    let written = wanted.iter().map(|(name, ..)| name.as_str()).chain(project.as_deref());
    if let Some(column) = written.filter_map(named).find(|column| column.is_generated) {
        let message = format!("column \"{}\" of table {} is generated", column.name, target.name);
        return Err(refuse(Reason::NotSupported, message).with_detail("clip_watch writes to it."));
    }
    if !has_index(spi, target, &request.checksum)? {
        notice(
            format!(
                "table {} has no index on \"{}\": each photo will be looked for by a scan",
                target.name, request.checksum
            ),
            Some(format!("CREATE INDEX ON {} ({})", target.name, identifier(&request.checksum))),
        );
    }
    Ok(project)
}

/// Refuses a target of another watch, before its columns are looked at.
fn check_free(spi: &Spi, extension: &ExtensionSchema, source: &Source, target: &Table) -> Result<(), Error> {
    let other = format!(
        "SELECT FROM {}.clip_watches WHERE target = $1 AND source <> $2
            AND EXISTS (SELECT FROM pg_class WHERE oid = source)",
        extension.schema
    );
    let arguments = [Argument::oid(target.oid), Argument::oid(source.table.oid)];
    let taken = act_as(extension.owner, || Ok::<_, Error>(spi.run_now(&other, &arguments)?.len() > 0))?;
    if taken { Err(taken_already(target)) } else { Ok(()) }
}

pub(super) fn taken_already(target: &Table) -> Error {
    refuse(Reason::NotReady, format!("table {} takes the embeddings of another table already", target.name))
        .with_hint("Name a target of its own with target => '...'.")
}

/// Refuses a storage that the target has not.
fn check_storage(
    extension: &ExtensionSchema,
    target: &Table,
    columns: &[Column],
    request: &Request,
) -> Result<(), Error> {
    let column = find(target, columns, request.embedding.clone())?;
    let found = Storage::of(extension, column.type_oid);
    match request.storage {
        Some(wanted) if wanted != found => {
            let message = format!(
                "column \"{}\" of table {} is of type {}, not {}",
                column.name,
                target.name,
                column.declaration,
                wanted.name()
            );
            Err(refuse(Reason::WrongType, message).with_hint(format!(
                "Leave the storage out, then CALL clip_migrate({}, '...', storage => '{}').",
                literal(&target.name),
                wanted.name()
            )))
        }
        _ => Ok(()),
    }
}

fn check_project(
    source: &Source,
    target: &Table,
    columns: &[Column],
    request: &Request,
) -> Result<Option<String>, Error> {
    let Some(project) = &source.project else {
        return Ok(None);
    };
    let Some(name) = &request.target_project else {
        return Ok(None);
    };
    match columns.iter().find(|column| column.name == *name) {
        Some(column) => {
            check_same_type(&source.table, project, target, column)?;
            Ok(Some(name.clone()))
        }
        None if request.project.is_none() => Ok(None),
        None => find(target, columns, name.clone()).map(|_| None),
    }
}

/// Whether an index begins with a column.
fn has_index(spi: &Spi, table: &Table, column: &str) -> Result<bool, Error> {
    const INDEX: &str = "
        SELECT FROM pg_index JOIN pg_attribute ON attrelid = indrelid AND attnum = indkey[0]
        WHERE indrelid = $1 AND attname = $2 LIMIT 1";
    let column = Argument::text(column);
    act_as(table.owner, || Ok(spi.run_now(INDEX, &[Argument::oid(table.oid), column])?.len() > 0))
}

/// The schema that a table is in.
fn schema_of(table: &Table) -> String {
    // SAFETY: the table is locked, and its schema cannot be dropped before it.
    unsafe { crate::encoding::c_string(pg_sys::get_namespace_name(pg_sys::get_rel_namespace(table.oid))) }
}
