//! Experiments.
use crate::harness::*;
use crate::harness::browser::Browser;
use serde_json::json;

#[tokio::test]
async fn experiment() {
    let server = Server::start(&[]).await;
    let b = Browser::with_camera_denied().await;
    b.client.goto(&server.url("/login")).await.unwrap();
    println!("{:#?}", b.log("browser").await);
    for e in b.log("performance").await { let s = e["message"].as_str().unwrap().to_owned(); println!("{}", &s[..s.len().min(300)]); }
    let gum = "const done = arguments[arguments.length-1]; navigator.mediaDevices.getUserMedia({video:true}).then(s=>done(String(s.getVideoTracks()[0].label)), e=>done(String(e)))";
    println!("gum {}", b.client.execute_async(gum, vec![]).await.unwrap());
    // hidden
    b.run("window.log=[]; document.addEventListener('visibilitychange', () => window.log.push([performance.now(), document.visibilityState]))").await;
    let first = b.client.window().await.unwrap();
    println!("vis0 {}", b.run("return document.visibilityState").await);
    let w = b.client.new_window(true).await.unwrap();
    println!("vis1 (old) {}", b.run("return document.visibilityState").await);
    b.client.switch_to_window(w.handle.clone()).await.unwrap();
    println!("new tab {}", b.run("return document.visibilityState").await);
    b.client.switch_to_window(first.clone()).await.unwrap();
    println!("vis2 (old after switching) {}", b.run("return [document.visibilityState, window.log]").await);
    b.client.switch_to_window(w.handle.clone()).await.unwrap();
    b.devtools("Page.bringToFront", json!({})).await;
    b.client.switch_to_window(first.clone()).await.unwrap();
    println!("vis3 (other to front) {}", b.run("return [document.visibilityState, window.log]").await);
    tokio::time::sleep(std::time::Duration::from_millis(500)).await;
    println!("vis3b {}", b.run("return [document.visibilityState, window.log]").await);
    b.devtools("Page.bringToFront", json!({})).await;
    tokio::time::sleep(std::time::Duration::from_millis(500)).await;
    println!("vis4 (to front) {}", b.run("return [document.visibilityState, window.log]").await);
    println!("min {:?}", b.client.minimize_window().await);
    tokio::time::sleep(std::time::Duration::from_millis(500)).await;
    println!("vis5 (minimized) {}", b.run("return [document.visibilityState, window.log]").await);
    let w2 = b.client.new_window(false).await.unwrap();
    b.client.switch_to_window(w2.handle.clone()).await.unwrap();
    b.devtools("Page.bringToFront", json!({})).await;
    b.client.switch_to_window(first.clone()).await.unwrap();
    println!("vis6 (new window front) {}", b.run("return [document.visibilityState, window.log]").await);
}
