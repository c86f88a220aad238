-- What the extension's objects are and who beside their owner may use them, one line each. Written down by
-- cargo xtask --pg 18 psql -- -XAtqf tests/data/privileges.sql > tests/data/privileges.txt
WITH member AS (
	SELECT objid, classid FROM pg_depend
	WHERE deptype = 'e' AND refclassid = 'pg_extension'::regclass
		AND refobjid = (SELECT oid FROM pg_extension WHERE extname = 'pg_clip')
), object AS (
	SELECT objid, classid, format('%s %s(%s)', CASE prokind WHEN 'p' THEN 'procedure' ELSE 'function' END,
			proname, pg_get_function_identity_arguments(objid)) AS name,
		COALESCE(proacl, acldefault('f', proowner)) AS acl, proowner AS owner,
		concat_ws(', ', lanname, CASE WHEN prosecdef THEN 'security definer' END, array_to_string(proconfig, ', ')) AS how
	FROM member JOIN pg_proc ON pg_proc.oid = objid JOIN pg_language ON pg_language.oid = prolang
	WHERE classid = 'pg_proc'::regclass
	UNION ALL
	SELECT objid, classid, format('%s %s', CASE relkind WHEN 'v' THEN 'view' WHEN 'r' THEN 'table' WHEN 'S' THEN 'sequence'
			ELSE 'relation of kind ' || relkind::text END, relname),
		COALESCE(relacl, acldefault(CASE relkind WHEN 'S' THEN 's' ELSE 'r' END::"char", relowner)), relowner,
		array_to_string(reloptions, ', ')
	FROM member JOIN pg_class ON pg_class.oid = objid
	WHERE classid = 'pg_class'::regclass
	UNION ALL
	SELECT objid, classid, format('%s %s', type, identity), NULL, NULL, NULL
	FROM member, LATERAL pg_identify_object(classid, objid, 0)
	WHERE classid NOT IN ('pg_proc'::regclass, 'pg_class'::regclass)
		AND NOT (classid = 'pg_type'::regclass AND EXISTS (
			SELECT FROM pg_type WHERE pg_type.oid = objid AND (typrelid <> 0 OR typelem <> 0)))
)
SELECT concat_ws('; ', name,
	COALESCE((
		SELECT string_agg(format('%s: %s', grantee, rights), ', ' ORDER BY grantee)
		FROM (
			SELECT CASE entry.grantee WHEN 0 THEN 'PUBLIC' ELSE pg_get_userbyid(entry.grantee) END AS grantee,
				string_agg(privilege_type, ' ' ORDER BY privilege_type) AS rights
			FROM aclexplode(acl) AS entry WHERE entry.grantee <> owner GROUP BY 1
		) AS granted
	), 'owner only'),
	NULLIF(how, ''),
	CASE WHEN obj_description(objid, classid::regclass::name) IS NULL THEN 'NO COMMENT' END)
FROM object
ORDER BY name COLLATE "C";
