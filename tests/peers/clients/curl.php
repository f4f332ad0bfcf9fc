<?php
// PHP's curl, in a loop. php curl.php http://HOST:PORT KEY[=AMOUNT]...
require __DIR__ . '/calls.php';

each(fn (string $key, int $amount) => patiently(function () use ($key, $amount) {
    $curl = curl_init(BASE . '/orders');
    $retryAfter = null;
    curl_setopt_array($curl, [
        CURLOPT_POSTFIELDS => order($amount),
        CURLOPT_HTTPHEADER => array_map(fn ($name, $value) => "$name: $value", array_keys(headers($key)), headers($key)),
        CURLOPT_RETURNTRANSFER => true,
        CURLOPT_PROXY => '',
        CURLOPT_TIMEOUT_MS => 1000 * timeout($key),
        CURLOPT_HEADERFUNCTION => function ($curl, string $line) use (&$retryAfter) {
            if (preg_match('/^retry-after: *(\d+)/i', $line, $found)) {
                $retryAfter = $found[1];
            }
            return strlen($line);
        },
    ]);
    $body = curl_exec($curl);
    if ($body === false) {
        throw new RuntimeException(curl_error($curl));
    }
    return [curl_getinfo($curl, CURLINFO_RESPONSE_CODE), $body, $retryAfter];
}));
