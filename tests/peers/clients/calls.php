<?php
// What the clients in PHP have in common. `php CLIENT.php http://HOST:PORT KEY[=AMOUNT]...` creates one thing for each key,
// and prints what the caller saw of it, as one line of JSON.

define('BASE', $argv[1]);

/** A response that is no success, where the client raises nothing by itself. */
class Refused extends Exception
{
    public function __construct(public int $status, public string $body)
    {
        parent::__construct();
    }
}

/** Who asks for something slow does not wait for it. */
function timeout(string $key): float
{
    return str_starts_with($key, 'slow') ? 3 : 60;
}

function headers(string $key): array
{
    return ['Content-Type' => 'application/json', 'Idempotency-Key' => $key, 'Authorization' => 'Bearer secret'];
}

function order(int $amount): string
{
    return json_encode(['amount' => $amount, 'note' => str_repeat('n', $amount)]);
}

/** `$create(key, amount)` gives the id of what was created; `$told(error)` says what an exception carries. */
function each(callable $create, ?callable $told = null): void
{
    global $argv;
    foreach (array_slice($argv, 2) as $call) {
        [$key, $amount] = explode('=', $call) + [1 => '1'];
        $began = microtime(true);
        try {
            $saw = ['id' => $create($key, (int) $amount)];
        } catch (Refused $refused) {
            $saw = ['status' => $refused->status, 'code' => json_decode($refused->body)->code ?? null];
        } catch (Exception $error) {
            $saw = ['raised' => (new ReflectionClass($error))->getShortName()] + ($told ? $told($error) : []);
        }
        echo json_encode(['key' => $key] + $saw + ['ms' => (int) (1000 * (microtime(true) - $began))]), "\n";
    }
}

/** The loop that people write around a client that does not repeat by itself. */
function patiently(callable $send): string
{
    for ($tries = 1;; $tries++) {
        $retryAfter = null;
        try {
            [$status, $body, $retryAfter] = $send();
            if ($status < 300) {
                return json_decode($body)->id;
            }
            if ($tries === 4 || !($status >= 500 || ($status === 409 && $retryAfter))) {
                throw new Refused($status, $body);
            }
        } catch (RuntimeException $error) {
            if ($tries === 4) {
                throw $error;
            }
        }
        usleep((int) (1000000 * ($retryAfter ?? 0.25 * $tries)));
    }
}
