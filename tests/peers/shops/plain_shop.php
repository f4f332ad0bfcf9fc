<?php
// A shop in plain PHP, as a router of its own web server: a form with its CSRF token, a session, and a message that is shown
// once.
//
// Nothing in it knows of onlyonce but the tag in the page. FOLDER is a folder for the database; while a file "gate" is there,
// an order takes its time.

$folder = getenv('FOLDER');
$database = new PDO("sqlite:$folder/php.sqlite3", null, null, [PDO::ATTR_ERRMODE => PDO::ERRMODE_EXCEPTION]);
$database->exec('CREATE TABLE IF NOT EXISTS orders (id INTEGER PRIMARY KEY, name TEXT NOT NULL)');
$path = parse_url($_SERVER['REQUEST_URI'], PHP_URL_PATH);

if ($path === '/rows') {
    header('Content-Type: text/plain');
    echo $database->query('SELECT count(*) FROM orders')->fetchColumn();
    return;
}

session_save_path($folder);
session_start();
$_SESSION['token'] ??= bin2hex(random_bytes(16));

function head(): void
{
    header('Content-Type: text/html; charset=utf-8');
    echo '<!doctype html><html lang="en"><head><meta charset="utf-8"><title>Order</title>';
    echo '<script src="/.onlyonce/form.js" data-forms="form" defer></script></head><body>';
}

function form(string $name = '', string $error = ''): void
{
    head();
    ?>
<form method="post" action="/orders.php"><input type="hidden" name="csrf" value="<?= $_SESSION['token'] ?>">
<label>Name <input id="name" name="name" value="<?= htmlspecialchars($name) ?>" required></label>
<?php if ($error) { ?><p id="error"><?= $error ?></p><?php } ?>
<input type="submit" id="save"></form></body></html>
<?php
}

if ($_SERVER['REQUEST_METHOD'] === 'POST') {
    if (!hash_equals($_SESSION['token'], $_POST['csrf'] ?? '')) {
        http_response_code(403);
        echo 'forged';
        return;
    }
    $name = trim($_POST['name'] ?? '');
    if ($name === '' || $name === 'bad') {
        form($name, 'No such name.');
        return;
    }
    $database->prepare('INSERT INTO orders (name) VALUES (?)')->execute([$name]);
    $id = $database->lastInsertId();
    // A session is locked while it is open, and the form may be loaded again meanwhile.
    session_write_close();
    while (file_exists("$folder/gate")) {
        usleep(20_000);
        clearstatcache();
    }
    session_start();
    $_SESSION['flash'] = "Order $id is placed.";
    header("Location: /order.php?id=$id");
    return;
}

if ($path === '/order.php') {
    $order = $database->prepare('SELECT id FROM orders WHERE id = ?');
    $order->execute([$_GET['id']]);
    head();
    if (isset($_SESSION['flash'])) {
        echo '<p class="flash">', htmlspecialchars($_SESSION['flash']), '</p>';
        unset($_SESSION['flash']);
    }
    echo '<p id="order">', $order->fetchColumn(), '</p></body></html>';
    return;
}

form();
