CREATE TABLE goods (name text PRIMARY KEY, price integer NOT NULL);
INSERT INTO goods VALUES ('apple', 3), ('pear', 4);
