<?php
foreach ((new PDO('sqlite:/app/data.db'))->query('SELECT word FROM words') as $row) {
    echo $row['word'], "\n";
}
