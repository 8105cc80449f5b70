// tus-js-client on a resume URL: `node tus.cjs FILE RESUME_URL CHECKS`. It gets no endpoint, so it
// can create nothing: all it does is go on. Prints what happened as a line of JSON.
const fs = require("fs");
const path = require("path");
const modules = process.env.NODE_MODULES;
const tus = require(path.join(modules, "tus-js-client"));

const [file, uploadUrl, chunk] = process.argv.slice(2);
const told = { requests: [], errors: 0 };
const options = {
  uploadUrl,
  uploadSize: fs.statSync(file).size,
  chunkSize: Number(chunk) || Infinity,
  retryDelays: [0, 50, 100, 200, 400],
  onBeforeRequest: (request) => told.requests.push(request.getMethod()),
  onShouldRetry: (error) => { told.errors += 1; return error !== null; },
  onError: (error) => {
    console.log(JSON.stringify({ ...told, error: String(error).replaceAll(uploadUrl, "URL") }));
    process.exit(1);
  },
  onSuccess: () => console.log(JSON.stringify(told)),
};
new tus.Upload(fs.createReadStream(file), options).start();
