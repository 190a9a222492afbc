-- The role of the service, which owns nothing: what it may do it is given by `broker migrate` (app/privileges.py).
-- The image of PostgreSQL runs this once, as POSTGRES_USER, when it makes the cluster.
\getenv password POSTGRES_SERVICE_PASSWORD
CREATE ROLE broker_service LOGIN PASSWORD :'password';
