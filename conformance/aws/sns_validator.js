// Checks one message on standard input with sns-validator, and that it refuses a changed one.
//
// It fetches certificates over HTTPS only, so its fetching goes to the HTTP address that the message names.
"use strict";

const http = require("http");
const https = require("https");

https.get = (url, answer) => http.get(url.replace("https:", "http:"), answer);
const MessageValidator = require("sns-validator");
const message = JSON.parse(require("fs").readFileSync(0, "utf8"));
message.SigningCertURL = message.SigningCertURL.replace("http:", "https:");
const validator = new MessageValidator(/^127\.0\.0\.1:\d+$/);
validator.validate(message, (error) => {
  if (error) throw error;
  validator.validate({ ...message, Message: "another" }, (refused) => {
    if (!refused) throw new Error("a changed message is accepted");
  });
});
