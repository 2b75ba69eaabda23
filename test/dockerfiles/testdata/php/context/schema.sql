CREATE TABLE words (word TEXT); INSERT INTO words VALUES ('from'), ('SQLite');
