// Asks in TLS by HTTP/1.1 and by HTTP/2, and sends and gets a long body.
package main

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"net/http"
	"os"
	"sync"
)

func must(err error) {
	if err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
}

func main() {
	base, authorities := os.Args[1], x509.NewCertPool()
	pem, err := os.ReadFile(os.Args[2])
	must(err)
	authorities.AppendCertsFromPEM(pem)
	for _, http2 := range []bool{false, true} {
		config := &tls.Config{RootCAs: authorities}
		transport := &http.Transport{TLSClientConfig: config, ForceAttemptHTTP2: http2}
		client := &http.Client{Transport: transport}
		body := bytes.Repeat([]byte("go"), 50_000_000)
		answer, err := client.Post(base+"/test/echo", "text/plain", bytes.NewReader(body))
		must(err)
		echo, err := io.ReadAll(answer.Body)
		must(err)
		fmt.Println(answer.Proto, answer.StatusCode, bytes.Equal(echo, body))
		var all sync.WaitGroup
		for i := 0; i < 100; i++ {
			all.Add(1)
			go func() {
				defer all.Done()
				answer, err := client.Get(base + "/health")
				must(err)
				text, err := io.ReadAll(answer.Body)
				must(err)
				if string(text) != "ok\n" {
					must(fmt.Errorf("%q", text))
				}
			}()
		}
		all.Wait()
	}
}
