// Go's net/http, in a loop. go run net_http.go http://HOST:PORT KEY[=AMOUNT]...
package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"strconv"
	"strings"
	"time"
)

type problem struct {
	Status int
	ID     string `json:"id"`
	Code   string `json:"code"`
	retry  string
}

var client = &http.Client{Transport: &http.Transport{}}

func post(key string, amount int) (problem, error) {
	body, _ := json.Marshal(map[string]any{"amount": amount, "note": strings.Repeat("n", amount)})
	request, err := http.NewRequest("POST", os.Args[1]+"/orders", bytes.NewReader(body))
	if err != nil {
		return problem{}, err
	}
	request.Header.Set("Content-Type", "application/json")
	request.Header.Set("Idempotency-Key", key)
	request.Header.Set("Authorization", "Bearer secret")
	client.Timeout = time.Minute
	if strings.HasPrefix(key, "slow") {
		// Who asks for something slow does not wait for it.
		client.Timeout = 3 * time.Second
	}
	response, err := client.Do(request)
	if err != nil {
		return problem{}, err
	}
	defer response.Body.Close()
	told := problem{Status: response.StatusCode, retry: response.Header.Get("Retry-After")}
	text, err := io.ReadAll(response.Body)
	if err == nil {
		// What is no JSON has no code.
		_ = json.Unmarshal(text, &told)
		told.Status = response.StatusCode
	}
	return told, err
}

// The loop that people write around a client that does not repeat by itself.
func patiently(key string, amount int) (told problem, err error) {
	for tries := 1; ; tries++ {
		told, err = post(key, amount)
		final := err == nil && told.Status < 500 && !(told.Status == http.StatusConflict && told.retry != "")
		if final || tries == 4 {
			return told, err
		}
		pause := time.Duration(tries) * 250 * time.Millisecond
		if seconds, bad := strconv.Atoi(told.retry); bad == nil && err == nil {
			pause = time.Duration(seconds) * time.Second
		}
		time.Sleep(pause)
	}
}

func main() {
	for _, call := range os.Args[2:] {
		key, number, found := strings.Cut(call, "=")
		amount := 1
		if found {
			amount, _ = strconv.Atoi(number)
		}
		began := time.Now()
		told, err := patiently(key, amount)
		saw := map[string]any{"key": key}
		switch {
		case err != nil:
			for inner := err; inner != nil; inner = errors.Unwrap(inner) {
				saw["raised"] = strings.TrimPrefix(fmt.Sprintf("%T", inner), "*")
			}
		case told.Status < 300:
			saw["id"] = told.ID
		default:
			saw["status"], saw["code"] = told.Status, told.Code
		}
		saw["ms"] = time.Since(began).Milliseconds()
		line, _ := json.Marshal(saw)
		fmt.Println(string(line))
	}
}
