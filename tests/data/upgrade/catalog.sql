-- All that the catalogs say of the extension's objects, one line each, whatever their numbers are.
WITH extension AS (
	SELECT * FROM pg_extension WHERE extname = 'pg_clip'
), member AS (
	SELECT classid, objid FROM pg_depend
	WHERE deptype = 'e' AND refclassid = 'pg_extension'::regclass AND refobjid = (SELECT oid FROM extension)
), relation AS (
	SELECT pg_class.* FROM member JOIN pg_class ON classid = 'pg_class'::regclass AND oid = objid
), object AS (
	SELECT classid, objid FROM member
	UNION SELECT 'pg_rewrite'::regclass, pg_rewrite.oid FROM pg_rewrite JOIN relation ON relation.oid = ev_class
	UNION SELECT 'pg_constraint'::regclass, pg_constraint.oid FROM pg_constraint JOIN relation ON relation.oid = conrelid
	UNION SELECT 'pg_attrdef'::regclass, pg_attrdef.oid FROM pg_attrdef JOIN relation ON relation.oid = adrelid
	UNION SELECT 'pg_class'::regclass, indexrelid FROM pg_index JOIN relation ON relation.oid = indrelid
	UNION SELECT 'pg_trigger'::regclass, pg_trigger.oid FROM pg_trigger JOIN relation ON relation.oid = tgrelid
		WHERE NOT tgisinternal
), privilege AS (
	SELECT 'pg_proc'::regclass AS classid, oid AS objid, COALESCE(proacl, acldefault('f', proowner)) AS acl FROM pg_proc
	UNION ALL SELECT 'pg_class'::regclass, oid, COALESCE(relacl, acldefault('r', relowner)) FROM pg_class
), line AS (
	SELECT format('extension %s of %s', extversion, extnamespace::regnamespace) AS line FROM extension
	UNION ALL
	SELECT format('dumped %s where %L', config.oid::regclass, config.condition)
	FROM extension, unnest(extconfig, extcondition) AS config (oid, condition)
	UNION ALL
	SELECT format('%s: owner %s, comment %L', pg_describe_object(classid, objid, 0),
		CASE classid WHEN 'pg_proc'::regclass THEN (SELECT proowner FROM pg_proc WHERE oid = objid)
			WHEN 'pg_class'::regclass THEN (SELECT relowner FROM pg_class WHERE oid = objid) END::regrole,
		obj_description(objid, classid::regclass::name))
	FROM object WHERE classid <> 'pg_type'::regclass
	UNION ALL
	SELECT format('%s: %s to %s%s', pg_describe_object(classid, objid, 0), privilege_type,
		CASE grantee WHEN 0 THEN 'PUBLIC' ELSE grantee::regrole::text END, CASE WHEN is_grantable THEN ' with grant' END)
	FROM object JOIN privilege USING (classid, objid), aclexplode(acl)
	UNION ALL
	SELECT format('%s: at first %s to %s', pg_describe_object(classoid, objoid, objsubid), entry.privilege_type,
		CASE entry.grantee WHEN 0 THEN 'PUBLIC' ELSE entry.grantee::regrole::text END)
	FROM pg_init_privs, aclexplode(initprivs) AS entry
	WHERE (classoid, objoid) IN (SELECT classid, objid FROM member)
	UNION ALL
	SELECT format('%s with %s rows: %s', oid::regprocedure, prorows, pg_get_functiondef(oid))
	FROM member JOIN pg_proc ON classid = 'pg_proc'::regclass AND oid = objid
	UNION ALL
	SELECT format('%s: kind %s, options %s, persistence %s, identity %s, row security %s %s', oid::regclass, relkind,
		array_to_string(reloptions, ', '), relpersistence, relreplident, relrowsecurity, relforcerowsecurity)
	FROM relation
	UNION ALL
	SELECT format('%s %s. %s: %s, not null %s, default %s, collation %s, storage %s, compression %s, statistics %s, comment %L',
		attrelid::regclass, row_number() OVER (PARTITION BY attrelid ORDER BY attnum), attname,
		format_type(atttypid, atttypmod), attnotnull, pg_get_expr(adbin, adrelid), attcollation::regcollation, attstorage,
		attcompression, attstattarget, col_description(attrelid, attnum))
	FROM relation JOIN pg_attribute ON attrelid = relation.oid AND attnum > 0 AND NOT attisdropped
	LEFT JOIN pg_attrdef ON adrelid = attrelid AND adnum = attnum
	UNION ALL
	SELECT format('%s: %s', oid::regclass, pg_get_viewdef(oid)) FROM relation WHERE relkind = 'v'
	UNION ALL
	SELECT format('%s: %s, valid %s', conname, pg_get_constraintdef(pg_constraint.oid), convalidated)
	FROM pg_constraint JOIN relation ON relation.oid = conrelid
	UNION ALL
	SELECT format('%s, valid %s', pg_get_indexdef(indexrelid), indisvalid)
	FROM pg_index JOIN relation ON relation.oid = indrelid
	UNION ALL
	SELECT format('%s on %s of %s calls %s, enabled %s', evtname, evtevent, evttags, evtfoid::regprocedure, evtenabled)
	FROM member JOIN pg_event_trigger ON classid = 'pg_event_trigger'::regclass AND oid = objid
	UNION ALL
	SELECT format('%s needs %s (%s)', pg_describe_object(depend.classid, depend.objid, depend.objsubid),
		pg_describe_object(refclassid, refobjid, refobjsubid), deptype)
	FROM pg_depend AS depend JOIN object ON object.classid = depend.classid AND object.objid = depend.objid
)
SELECT line FROM line WHERE line IS NOT NULL AND line NOT LIKE '%pg\_toast%' ORDER BY line COLLATE "C"
