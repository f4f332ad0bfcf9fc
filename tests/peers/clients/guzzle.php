<?php
// Guzzle, with its retry middleware. php guzzle.php http://HOST:PORT KEY[=AMOUNT]...
require __DIR__ . '/calls.php';
require 'GuzzleHttp/autoload.php';

use GuzzleHttp\Client;
use GuzzleHttp\Exception\ConnectException;
use GuzzleHttp\Exception\RequestException;
use GuzzleHttp\HandlerStack;
use GuzzleHttp\Middleware;

$stack = HandlerStack::create();
$stack->push(Middleware::retry(
    fn (int $retries, $request, $response = null, $error = null) => $retries < 3
        && ($error instanceof ConnectException || ($response && $response->getStatusCode() >= 500)),
    fn (int $retries) => 250 * $retries,
));
$client = new Client(['base_uri' => BASE, 'handler' => $stack, 'proxy' => '']);

each(
    function (string $key, int $amount) use ($client) {
        $options = ['body' => order($amount), 'headers' => headers($key), 'timeout' => timeout($key)];
        return json_decode((string) $client->post('/orders', $options)->getBody())->id;
    },
    function (Exception $error) {
        if (!$error instanceof RequestException || !$error->hasResponse()) {
            return [];
        }
        $response = $error->getResponse();
        return ['status' => $response->getStatusCode(), 'code' => json_decode((string) $response->getBody())->code ?? null];
    },
);
